#!/usr/bin/env python3
"""Compiles the C and C++ in the documentation as a careful user would: without a warning.

Blocks with a main function are whole programs. Others are put into a frame of what the page takes
for granted around them; a block without a frame is an error.

Usage: snippets.py SOURCE_DIR CC CXX
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(c|cpp)\n(.*?)^```", re.MULTILINE | re.DOTALL)

LANGUAGES = {"c": ["-x", "c", "-std=c11"], "cpp": ["-x", "c++", "-std=c++17"]}

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]

# By page and the beginning of a block; the block stands where the @ is.
FRAMES = {
    ("c.md", "static int report("): """
        #include <string.h>
        #include <toolb.h>
        void queue_push(void *queue, toolb_token *token);
        @
        int (*used)(void *, const toolb_request *, toolb_response *) = report;
    """,
    ("c.md", "(void)toolb_token_answer("): """
        #include <string.h>
        #include <toolb.h>
        void answer(toolb_token *token, const char *text);
        void answer(toolb_token *token, const char *text) { @ }
    """,
    ("consumers.md", "toolb_consumer_route("): """
        #include <toolb.h>
        toolb_handler get_user, create_user;
        void serve(toolb_consumer *consumer);
        void serve(toolb_consumer *consumer) { @ }
    """,
    ("consumers.md", "toolb_consumer_ready("): """
        #include <toolb.h>
        void serve(toolb_consumer *consumer);
        void serve(toolb_consumer *consumer) { @ }
    """,
    ("consumers.md", "case TOOLB_EVENT_STREAM_DATA:"): """
        #include <toolb.h>
        void keep(uint64_t exchange, toolb_slice data, uint32_t flags);
        void take(toolb_consumer *consumer, const toolb_event *given);
        void take(toolb_consumer *consumer, const toolb_event *given)
        {
            toolb_event event = *given;
            switch (event.kind) { @ }
        }
    """,
    ("consumers.md", "toolb_status toolb_consumer_attach("): """
        #include <toolb.h>
        @
    """,
    ("cpp.md", 'engine.route("GET", "/count"'): """
        #include <string>
        #include <toolb.hpp>
        struct Counter { int requests = 0; };
        void add(toolb::Engine &engine) { @ }
    """,
    ("cpp.md", 'engine.get("/report"'): """
        #include <string>
        #include <toolb.hpp>
        std::string make_report();
        struct Workers { template <class Call> void post(Call call) { call(); } };
        void add(toolb::Engine &engine, Workers &workers) { @ }
    """,
    ("cpp.md", "struct Greeter"): """
        #include <toolb.hpp>
        void add(toolb::Engine &engine) { @ }
    """,
    ("cpp.md", "auto consumer = toolb::Consumer::attach();"): """
        #include <cstdio>
        #include <toolb.hpp>
        int serve() { @ return status ? 0 : 3; }
    """,
}


def framed(page: str, block: str) -> str | None:
    """A whole source file for a block, if it can be told."""
    if "int main(" in block:
        return block
    for (name, start), frame in FRAMES.items():
        if name == page and block.startswith(start):
            return frame.replace("@", f"\n{block}\n")
    return None


def main() -> int:
    root, compilers = Path(sys.argv[1]), {"c": sys.argv[2], "cpp": sys.argv[3]}
    include = [f"-I{root}/include", f"-I{root}/bindings/cpp"]
    found, failed = 0, False
    for page in [root / "README.md", *sorted(root.glob("docs/*.md"))]:
        for language, block in BLOCK.findall(page.read_text()):
            found += 1
            source = framed(page.name, block)
            if source is None:
                print(f"{page.relative_to(root)}: no frame for the block\n{block}")
                failed = True
                continue
            command = [compilers[language], *LANGUAGES[language], *WARNINGS, "-fsyntax-only"]
            done = subprocess.run(
                [*command, *include, "-"],
                input=source,
                text=True,
                capture_output=True,
                check=False,
            )
            if done.returncode != 0:
                print(f"{page.relative_to(root)}: this does not compile:\n{block}\n{done.stderr}")
                failed = True
    print(f"{found} blocks")
    return 1 if failed or found < len(FRAMES) else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Compiles the C and C++ programs in the documentation: those blocks that have a main function.

Usage: snippets.py SOURCE_DIR CC CXX
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(c|cpp)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> int:
    root, compilers = Path(sys.argv[1]), {"c": sys.argv[2], "cpp": sys.argv[3]}
    languages = {"c": ["-x", "c", "-std=c11"], "cpp": ["-x", "c++", "-std=c++17"]}
    found, failed = 0, False
    for page in [root / "README.md", *sorted(root.glob("docs/*.md"))]:
        for language, source in BLOCK.findall(page.read_text()):
            if "int main(" not in source:
                continue
            found += 1
            command = [compilers[language], *languages[language], "-Wall", "-fsyntax-only"]
            command += [f"-I{root}/include", f"-I{root}/bindings/cpp", "-"]
            done = subprocess.run(
                command, input=source, text=True, capture_output=True, check=False
            )
            if done.returncode != 0:
                print(f"{page.relative_to(root)}: a program does not compile:\n{done.stderr}")
                failed = True
    print(f"{found} programs")
    return 1 if failed or found == 0 else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Checks that modules import only downwards.

The floors stand in the `floors` block of ARCHITECTURE.md, and nowhere else. A module imports only
from floors below its own; modules of one floor never import each other. Crates around the core see
only the modules that the block grants them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rustlex import Token, rust_files, tokens

CORE = "core/src"
CORE_CRATE = "toolb_core"


@dataclass
class Floors:
    """The table: who stands where, and what is ruled out or granted beyond that."""

    floor: dict[str, int] = field(default_factory=dict)
    never: set[tuple[str, str]] = field(default_factory=set)
    outside: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: str) -> Floors:
        """Reads the table from the text of ARCHITECTURE.md."""
        block = re.search(r"^```floors\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
        if block is None:
            raise ValueError("ARCHITECTURE.md has no ```floors block")
        table = cls()
        for line in block[1].splitlines():
            words = line.split()
            match words:
                case []:
                    continue
                case ["never", importer, "->", imported]:
                    table.never.add((importer, imported))
                case ["outside", crate, "->", *granted]:
                    table.outside[crate] = set(granted)
                case [number, *modules] if number.isdigit() and modules:
                    table.floor.update(dict.fromkeys(modules, int(number)))
                case _:
                    raise ValueError(f"cannot read this line of the floors block: {line!r}")
        return table

    def objection(self, importer: str, imported: str) -> str | None:
        """Why module `importer` may not import `imported`, if it may not."""
        if importer == imported:
            return None
        own, other = self.floor[importer], self.floor.get(imported)
        if other is None:
            return f"{imported} is no module with a floor; name the module an item comes from"
        if (importer, imported) in self.never:
            return f"{importer} never imports {imported}"
        if other == own:
            return f"{importer} and {imported} share floor {own}; modules of one floor never import each other"
        if other > own:
            return f"{importer} (floor {own}) imports {imported} (floor {other}); modules import only from floors below"
        return None


@dataclass(frozen=True)
class Reference:
    """A path in the code that starts at a crate's root."""

    path: tuple[str, ...]
    line: int


def _is_name(text: str) -> bool:
    return bool(re.match(r"[A-Za-z_]", text))


class Reader:
    """Finds the paths of one source file, resolved to the crate's root."""

    def __init__(self, source: str, module: tuple[str, ...], crate: str = "crate") -> None:
        self._tokens = [*tokens(source), Token("", 0), Token("", 0), Token("", 0)]
        self._module = module
        self._crate = crate
        self._inner: list[tuple[str, int]] = []  # inline modules and the depth they opened at
        self._depth = 0

    def references(self) -> Iterator[Reference]:
        """Every path from the crate's root, in order."""
        at = 0
        while self._tokens[at].text:
            text = self._tokens[at].text
            if text == "{":
                self._depth += 1
            elif text == "}":
                self._depth -= 1
                if self._inner and self._inner[-1][1] == self._depth:
                    self._inner.pop()
            elif text == "mod" and self._tokens[at + 2].text == "{":
                self._inner.append((self._tokens[at + 1].text, self._depth))
            elif text == "use" and self._tokens[at - 1].text != "::":
                found: list[Reference] = []
                at = self._tree(at + 1, (), found)
                for reference in found:
                    yield from self._resolved(reference)
                continue
            elif text in ("super", "self", self._crate) and self._tokens[at + 1].text == "::":
                line, path = self._tokens[at].line, [text]
                while self._tokens[at + 1].text == "::" and _is_name(self._tokens[at + 2].text):
                    path.append(self._tokens[at + 2].text)
                    at += 2
                if self._tokens[at + 1].text == "!" and len(path) == 2:
                    path = []  # a macro at the root belongs to no module
                if path:
                    yield from self._resolved(Reference(tuple(path), line))
            at += 1

    def _tree(self, at: int, prefix: tuple[str, ...], found: list[Reference]) -> int:
        """Reads one use tree; returns the place after it."""
        path, line = prefix, self._tokens[at].line
        while True:
            token = self._tokens[at]
            if token.text == "{":
                at += 1
                while self._tokens[at].text not in ("}", ""):
                    at = self._tree(at, path, found)
                    if self._tokens[at].text == ",":
                        at += 1
                return at + 1
            if token.text == "::":
                at += 1
            elif token.text == "as":
                at += 2
            elif token.text == "*" or _is_name(token.text):
                path = (*path, token.text)
                line = token.line
                at += 1
            else:
                found.append(Reference(path, line))
                return at

    def _resolved(self, reference: Reference) -> Iterator[Reference]:
        path = reference.path
        if path and path[0] == self._crate:
            yield Reference(path[1:], reference.line)
            return
        if self._crate != "crate" or not path or path[0] not in ("self", "super"):
            return
        base = [*self._module, *(name for name, _ in self._inner)]
        rest = list(path)
        while rest and rest[0] in ("self", "super"):
            if rest.pop(0) == "super":
                if not base:
                    return
                base.pop()
        if not base:  # the path leaves through the crate's root
            yield Reference(tuple(rest), reference.line)


def module_of(path: Path) -> tuple[str, ...]:
    """The module path of a file, given relative to the crate's src folder."""
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts


def check(root: Path) -> list[str]:
    """Every breach of the rules below `root`, as lines to print."""
    table = Floors.parse((root / "ARCHITECTURE.md").read_text())
    problems: list[str] = []

    present = {
        path.stem for path in (root / CORE).iterdir() if path.is_dir() or path.suffix == ".rs"
    } - {"lib"}
    for name in sorted(present - table.floor.keys()):
        problems.append(f"{CORE}/{name}: has no floor in ARCHITECTURE.md")
    for name in sorted(table.floor.keys() - present):
        problems.append(f"ARCHITECTURE.md: gives a floor to {name}, which is not in {CORE}")

    for file in rust_files(root, CORE):
        module = module_of(file.relative_to(root / CORE))
        if not module or module[0] not in table.floor:
            continue
        where = file.relative_to(root)
        for reference in Reader(file.read_text(), module).references():
            imported = reference.path[0] if reference.path else "crate"
            why = table.objection(module[0], imported)
            if why:
                problems.append(f"{where}:{reference.line}: {why}")

    for crate, granted in sorted(table.outside.items()):
        for file in rust_files(root, f"{crate}/src"):
            where = file.relative_to(root)
            for reference in Reader(file.read_text(), (), CORE_CRATE).references():
                imported = reference.path[0] if reference.path else "the whole crate"
                if imported in table.floor and imported not in granted:
                    problems.append(
                        f"{where}:{reference.line}: {crate} sees only {', '.join(sorted(granted))} "
                        f"of the core, not {imported}"
                    )
                elif imported in ("*", "the whole crate"):
                    problems.append(
                        f"{where}:{reference.line}: {crate} names the modules of the core it uses"
                    )
    return list(dict.fromkeys(problems))


def main() -> int:
    """Prints what is wrong; 1 when something is."""
    problems = check(Path(__file__).resolve().parent.parent)
    print("\n".join(problems) or "floors: every import goes down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

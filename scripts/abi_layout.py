"""What a compiled program knows of a C header besides names: the signature of each function, the
value of each constant, each type, and size and offset of each field of a struct.

The text that `Layout.dump` writes is committed. `problems` compares a header with it: things may be
added, and a struct that begins with `struct_size` may grow behind its end; nothing else may move.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SIZES: dict[str, type[ctypes._CData]] = {
    "char": ctypes.c_char,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "size_t": ctypes.c_size_t,
    "uint8_t": ctypes.c_uint8,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
}
# Its numbers are kept in a list of their own, which knows of retired ones.
STATUSES = "toolb_status"


@dataclass(frozen=True)
class Field:
    name: str
    type: str
    offset: int
    size: int


@dataclass
class Struct:
    size: int = 0
    fields: list[Field] = field(default_factory=list)

    @property
    def grows(self) -> bool:
        """Who passes it says how much of it he knows."""
        return bool(self.fields) and self.fields[0].name == "struct_size"


@dataclass
class Layout:
    constants: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    structs: dict[str, Struct] = field(default_factory=dict)

    @classmethod
    def of_header(cls, header: str) -> Layout:
        """Reads a header as cbindgen writes it. What it does not understand is a ValueError."""
        layout = cls()
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", header, flags=re.DOTALL)
        text = re.sub(r"#ifdef __cplusplus.*?#endif", " ", text, flags=re.DOTALL)
        for name, value in re.findall(r"^#define (\w+) +(\S.*)$", text, re.MULTILINE):
            if not value.startswith("__attribute__"):
                layout.constants[name] = value.strip()
        text = re.sub(r"^\s*#.*$", " ", text, flags=re.MULTILINE)
        text = text.replace("TOOLB_MUST_USE", " ")
        kinds: dict[str, type[ctypes._CData]] = dict(SIZES)
        for statement in _statements(text):
            layout._read(statement, kinds)
        return layout

    @classmethod
    def of_dump(cls, dump: str) -> Layout:
        layout = cls()
        for line in dump.splitlines():
            kind, name, rest = line.split(" ", 2)
            if kind == "struct":
                layout.structs[name] = Struct(int(rest))
            elif kind == "field":
                own, offset, size, what = rest.split(" ", 3)
                layout.structs[name].fields.append(Field(own, what, int(offset), int(size)))
            else:
                layout._named(kind)[name] = rest
        return layout

    def dump(self) -> str:
        """A line each: `constant NAME VALUE`, `type NAME TYPE`, `struct NAME SIZE`, its
        `field STRUCT NAME OFFSET SIZE TYPE`, `function NAME SIGNATURE`."""
        lines = []
        for kind in ("constant", "type", "function"):
            lines += [f"{kind} {name} {what}" for name, what in sorted(self._named(kind).items())]
        for name, struct in sorted(self.structs.items()):
            lines.append(f"struct {name} {struct.size}")
            lines += [f"field {name} {f.name} {f.offset} {f.size} {f.type}" for f in struct.fields]
        return "".join(f"{line}\n" for line in lines)

    def _named(self, kind: str) -> dict[str, str]:
        return {"constant": self.constants, "type": self.types, "function": self.functions}[kind]

    def _read(self, statement: str, kinds: dict[str, type[ctypes._CData]]) -> None:
        if found := re.fullmatch(r"typedef enum (?:\w+ )?\{(.*)\} (\w+)", statement):
            self.types[found[2]] = "enum"
            kinds[found[2]] = ctypes.c_int
            if found[2] != STATUSES:
                for value in filter(None, map(str.strip, found[1].split(","))):
                    name, number = value.split(" = ")
                    self.constants[name] = number
        elif found := re.fullmatch(r"typedef struct (?:\w+ )?\{(.*)\} (\w+)", statement):
            self.structs[found[2]], kinds[found[2]] = _struct(found[1], kinds)
        elif found := re.fullmatch(r"typedef struct (\w+) \1", statement):
            self.types[found[1]] = "opaque"
        elif found := re.fullmatch(r"typedef (.*)", statement):
            name, what = _declaration(found[1])
            self.types[name] = what
            kinds[name] = _kind(what, kinds)
        elif found := re.fullmatch(r"(.*?)(\w+)\((.*)\)", statement):
            self.functions[found[2]] = f"{found[1].strip()} ({_parameters(found[3])})"
        else:
            raise ValueError(f"what does this mean for a program: {statement}")


def problems(listed: Layout, there: Layout, where: str) -> list[str]:
    """What moved or is gone, and what is there and not listed."""
    found = []
    for kind in ("constant", "type", "function"):
        old, new = listed._named(kind), there._named(kind)
        found += [f"{kind} {name} is not listed" for name in new.keys() - old.keys()]
        found += [f"{kind} {name} is gone from {where}" for name in old.keys() - new.keys()]
        found += [
            f"{kind} {name} was `{old[name]}` and is `{new[name]}`"
            for name in old.keys() & new.keys()
            if old[name] != new[name]
        ]
    for name in there.structs.keys() - listed.structs.keys():
        found.append(f"struct {name} is not listed")
    for name, struct in listed.structs.items():
        if name in there.structs:
            now = there.structs[name]
            found += [f"struct {name}: {p}" for p in (*_moved(struct, now), *_grown(struct, now))]
        else:
            found.append(f"struct {name} is gone from {where}")
    return sorted(found)


def added(listed: Layout, there: Layout) -> Layout:
    """What is listed, and with it what may be added."""
    structs = dict(listed.structs)
    for name, struct in there.structs.items():
        old = structs.get(name)
        if old is None or not any(_moved(old, struct)):
            structs[name] = struct
    return Layout(
        there.constants | listed.constants,
        there.types | listed.types,
        there.functions | listed.functions,
        structs,
    )


def _moved(old: Struct, new: Struct) -> Iterator[str]:
    """What breaks a program that was compiled before."""
    for was, now in zip(old.fields, new.fields, strict=False):
        if was != now:
            yield f"{_told(was)} has become {_told(now)}"
    for gone in old.fields[len(new.fields) :]:
        yield f"{_told(gone)} is gone"
    for more in new.fields[len(old.fields) :]:
        if not old.grows:
            yield f"{_told(more)} was added, but who passes it does not say how much he knows"
        elif more.offset < old.size:
            # Who was compiled before says the same struct_size, and never wrote there.
            yield f"{_told(more)} lies in what was padding up to {old.size}"
    if len(new.fields) == len(old.fields) and new.size != old.size:
        yield f"its size was {old.size} and is {new.size}"


def _grown(old: Struct, new: Struct) -> Iterator[str]:
    for more in new.fields[len(old.fields) :]:
        if old.grows and more.offset >= old.size:
            yield f"{_told(more)} is not listed"


def _told(one: Field) -> str:
    return f"`{one.type} {one.name}` at {one.offset}"


def _statements(text: str) -> Iterator[str]:
    depth, begun = 0, 0
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == ";" and depth == 0:
            yield " ".join(text[begun:at].split())
            begun = at + 1
    if rest := text[begun:].strip():
        raise ValueError(f"what does this mean for a program: {rest}")


def _struct(
    body: str, kinds: dict[str, type[ctypes._CData]]
) -> tuple[Struct, type[ctypes.Structure]]:
    declared = [_declaration(one.strip()) for one in body.split(";") if one.strip()]
    native = type(
        "native",
        (ctypes.Structure,),
        {"_fields_": [(name, _kind(what, kinds)) for name, what in declared]},
    )
    places = [(name, what, getattr(native, name)) for name, what in declared]
    fields = [Field(name, what, place.offset, place.size) for name, what, place in places]
    return Struct(ctypes.sizeof(native), fields), native


def _kind(what: str, kinds: dict[str, type[ctypes._CData]]) -> type[ctypes._CData]:
    """What takes as much room as a C type."""
    if what.endswith("*") or "(*)" in what:
        return ctypes.c_void_p
    if what not in kinds:
        raise ValueError(f"how large is a {what}?")
    return kinds[what]


def _declaration(text: str) -> tuple[str, str]:
    """`void *(*call)(int a)` as `call` and `void *(*)(int)`, `int a` as `a` and `int`."""
    if found := re.fullmatch(r"(.*)\(\*(\w+)\)\((.*)\)", text):
        return found[2], f"{found[1]}(*)({_parameters(found[3])})"
    if found := re.fullmatch(r"(.*?[ *])(\w+)", text):
        return found[2], found[1].strip()
    raise ValueError(f"what does this declare: {text}")


def _parameters(text: str) -> str:
    """The types alone: a parameter may change its name."""
    if text == "void":
        return text
    if "(" in text:
        raise ValueError(f"a callback needs a typedef: {text}")
    return ", ".join(_declaration(one.strip())[1] for one in text.split(","))

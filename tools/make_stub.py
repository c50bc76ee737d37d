"""Write ``python/jepa_ode/_core/engine.pyi`` from the signatures of the installed engine (`make stub`).

pybind11 puts a signature on the first line of every docstring. ``--check`` compares with the file and writes nothing;
layout does not count, so that no formatter is needed for it.
"""

from __future__ import annotations

import ast
import enum
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

STUB = Path(__file__).resolve().parent.parent / "python" / "jepa_ode" / "_core" / "engine.pyi"

HEADER = '"""The compiled engine. Written by tools/make_stub.py."""'
IMPORTS = (("collections.abc", "enum", "typing"), ("numpy", "numpy.typing"))

# pybind11 says what it would convert from; the callers inside this package are held to the plain type.
PLAIN = [
    (r"typing\.SupportsFloat( \| typing\.SupportsIndex)?", "float"),
    (r"typing\.SupportsInt( \| typing\.SupportsIndex)?", "int"),
    (r"collections\.abc\.Sequence\[", "list["),
    (r"\btuple\b(?!\[)", "tuple[typing.Any, ...]"),
    (r"\bdict\b(?!\[)", "dict[str, typing.Any]"),
    (r"\((?:self|arg0): [\w.]+", "(self"),
]


def signatures(name: str, doc: str | None) -> list[str]:
    """Return the signatures, ``(...) -> T``, that a docstring opens with; several for overloads."""
    lines = (doc or "").splitlines()
    if "Overloaded function." in lines:
        found = [line.split(". ", 1)[1] for line in lines if re.match(rf"\d+\. {name}\(", line)]
    else:
        found = lines[:1]
    if not found or not all("->" in line for line in found):
        raise SystemExit(f"{name}: its docstring does not open with a signature: {doc!r}")
    return [line[line.index("(") :] for line in found]


def simplify(signature: str, module: str) -> str:
    """Return a signature in the terms of the stub."""
    signature = signature.replace(f"{module}.", "")
    for pattern, plain in PLAIN:
        signature = re.sub(pattern, plain, signature)
    return signature


def function(name: str, doc: str | None, module: str) -> Iterator[str]:
    """Yield the lines of one function."""
    found = signatures(name, doc)
    for signature in found:
        if len(found) > 1:
            yield "@typing.overload"
        yield f"def {name}{simplify(signature, module)}: ..."


def class_body(cls: type, module: str) -> Iterator[str]:
    """Yield the lines of a class body."""
    if issubclass(cls, enum.Enum):
        yield from (f"{member.name} = {int(member.value)}" for member in cls)
        return
    for name, value in sorted(vars(cls).items()):
        if isinstance(value, property):
            yield "@property"
            yield from function(name, value.fget.__doc__, module)
        elif name == "__init__" and not value.__doc__.startswith("__init__("):
            yield "def __init__(self, made_by_the_engine_alone: typing.Never) -> None: ..."
        elif callable(value) and (name == "__init__" or not name.startswith("_")):
            yield from function(name, value.__doc__, module)


def members(engine: ModuleType) -> list[tuple[str, Any]]:
    """Return what the module offers, types first."""
    public = [(name, value) for name, value in vars(engine).items() if not name.startswith("_")]
    return sorted(public, key=lambda member: (not isinstance(member[1], type), member[0]))


def stub(engine: ModuleType) -> str:
    """Return the text of the stub."""
    lines: list[str] = []
    for name, value in members(engine):
        if isinstance(value, type):
            base = "(enum.IntEnum)" if issubclass(value, enum.IntEnum) else ""
            lines += ["", f"class {name}{base}:"]
            lines += [f"    {line}" for line in class_body(value, engine.__name__)] or ["    ..."]
        else:
            lines += ["", *function(name, value.__doc__, engine.__name__)]
    body = "\n".join(lines)
    imports = ["\n".join(f"import {name}" for name in group if f"{name}." in body) for group in IMPORTS]
    return "\n\n".join([HEADER, *imports, body]) + "\n"


def is_fresh(engine: ModuleType) -> bool:
    """Return whether the stub in the tree describes this engine."""
    return STUB.exists() and ast.dump(ast.parse(STUB.read_text())) == ast.dump(ast.parse(stub(engine)))


def main() -> None:
    """Run the command."""
    from jepa_ode._core import engine

    if "--check" in sys.argv[1:]:
        if not is_fresh(engine):
            sys.exit(f"{STUB.name} does not describe the engine: run `make stub`")
    else:
        STUB.write_text(stub(engine))


if __name__ == "__main__":
    main()

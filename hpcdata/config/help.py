"""The list of configuration keys that `--help` prints: defaults, and the texts that stand below their definitions."""

from __future__ import annotations

import ast
import itertools
import textwrap
from collections.abc import Iterator
from pathlib import Path

from hpcdata.config import schema
from hpcdata.config.schema import REQUIRED, RunConfig
from hpcdata.config.values import key_types

WIDTH = 118


def describe_keys() -> str:
    """A line `key=default` for each key and what it does below; `*` before keys that change what is written."""
    texts = descriptions()
    lines = ["  (* changes what is written, so it is fixed by the first launch of a run)"]
    for key, value, is_semantic in schema.leaves(RunConfig()):
        lines.append(f" {'*' if is_semantic else ' '}{key}{_default(value)}")
        lines += textwrap.wrap(texts[key], WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def descriptions() -> dict[str, str]:
    """Key -> the text below its definition."""
    assert schema.__file__ is not None
    tree = ast.parse(Path(schema.__file__).read_text(encoding="utf-8"))
    texts = {node.name: dict(_texts(node)) for node in tree.body if isinstance(node, ast.ClassDef)}
    groups = {name: type(value).__name__ for name, value in vars(RunConfig()).items()}
    found = {}
    for key in key_types():
        group, _, name = key.rpartition(".")
        found[key] = texts[groups[group] if group else "RunConfig"].get(name, "")
    return found


def _texts(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """(field, the string below it as one line) of the fields that have one."""
    for item, below in itertools.pairwise(node.body):
        match item, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, " ".join(text.split())


def _default(value: object) -> str:
    if value == REQUIRED:
        return "=..., required"
    return "=" + ("null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))

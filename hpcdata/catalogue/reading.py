"""YAML -> entries. Whatever is wrong is told with the file, the line and the field."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text
from hpcdata.base.units import one_line
from hpcdata.catalogue.entry import Entry
from hpcdata.net import Refused
from hpcdata.net.addresses import parse

T = TypeVar("T")
_HEX = set("0123456789abcdef")
_REPO = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


class _Lines(dict[Any, Any]):
    """Fields with values, and the line of each (from 1)."""

    lines: Mapping[Any, int]


@dataclass(frozen=True)
class _Place:
    path: Path
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.path}{line}: {self.field}".removesuffix(": ")

    def of(self, name: Any, values: Mapping[Any, Any], between: str = ": ") -> _Place:
        """Of a field below this one."""
        line = values.lines.get(name, self.line) if isinstance(values, _Lines) else self.line
        return _Place(self.path, line, f"{self.field}{between}{name}" if self.field else str(name))


def read_entry(path: Path) -> Entry:
    """Raises UserError."""
    try:
        values = yaml_text.load(path.read_bytes(), _loader())
    except ValueError as error:
        raise UserError(f"{path} is no YAML: {error}") from None
    entry = _made(Entry, values, _Place(path))
    for field, problem in _problems(entry):
        raise UserError(f"{_Place(path).of(field, values)}: {problem}")
    return entry


@functools.cache
def _loader() -> Any:
    """Of safe tags. Refuses a field that stands twice, of which YAML would keep the last."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_yaml_map(self, node: Any) -> Iterator[_Lines]:
            found, lines = _Lines(), dict[Any, int]()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                name, line = self.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise yaml.YAMLError(f"line {line}: the field {name} stands there twice")
                lines[name] = line
            found.lines = lines
            yield found
            found.update(self.construct_mapping(node))

    Loader.add_constructor("tag:yaml.org,2002:map", Loader.construct_yaml_map)
    return Loader


def _problems(entry: Entry) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    if not any(letter.isalnum() for letter in entry.name):
        yield "name", f"{entry.name!r} has no letter and no digit"
    if strange := [name for name in entry.names() if not name.isprintable()]:
        yield "name", f"{strange[0]!r} has letters that cannot be printed"
    for field, given in (
        ("folder", [entry.folder]),
        ("also_in", entry.also_in),
        ("files", [item.path for item in entry.files]),
        ("unpack", [into for into in entry.unpack.values() if into != "."]),
        ("urls", [item.folder for item in entry.urls]),
    ):
        if wrong := [name for name in given if not is_below(name)]:
            yield field, f"{wrong[0]!r} is no path below the folder of the set"
    yield from _problems_of_files(entry)
    for tree in entry.hub:
        if not _REPO.fullmatch(tree.repo) or ".." in tree.repo:
            yield "hub", f"repo is {tree.repo!r}, expected OWNER/NAME"
    if any(not item.tables for item in entry.urls):
        yield "urls", "tables is empty: it says which files have the addresses"
    if unknown := [name for name in entry.rows if name not in entry.splits]:
        yield "rows", f"there is no split {unknown[0]}: splits has {', '.join(entry.splits) or 'none'}"
    if entry.reader and (unknown := [name for name in entry.reader.ids if name not in entry.splits]):
        yield "reader", f"ids: there is no split {unknown[0]}: splits has {', '.join(entry.splits) or 'none'}"
    if unknown := [name for name in entry.unchecked if name not in _names(Entry)]:
        yield "unchecked", f"there is no field {unknown[0]}"
    if entry.access == "manual" and not (entry.steps and entry.needs):
        yield "access", "access is manual: it needs steps, and needs (patterns of what is to lie there)"
    if entry.access in ("open", "gated") and not (entry.hub or entry.files):
        yield "access", f"access is {entry.access}, and nothing says where it comes from: give hub or files"
    if entry.access not in ("open", "gated", "manual") and not entry.note:
        yield "access", f"access is {entry.access}: note has to say what to do"


def _problems_of_files(entry: Entry) -> Iterator[tuple[str, str]]:
    paths = [item.path for item in entry.files]
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    for place, file in enumerate(entry.files):
        try:
            parse(file.url)
        except Refused as error:
            yield "files", f"{file.url!r} is no address that begins with http:// or https://: {error}"
        if file.sha256 is not None and (len(file.sha256) != 64 or not set(file.sha256) <= _HEX):
            yield "files", f"sha256 of {file.path} is no 64 small hexadecimal digits"
        if file.size is not None and file.size < 0:
            yield "files", f"size of {file.path} is {file.size}"
        if file.path in paths[:place] or file.path in folders:
            yield "files", f"{file.path} is there twice, or is the folder of another one"


def is_below(name: str) -> bool:
    """Whether a path stays in its folder, and out of what is ours there."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not (name.startswith("/") or ".." in parts or "\0" in name or ".hpcdata" in parts)


def require_below(name: str, where: str) -> None:
    """Raises UserError for a path that leads out of its folder, or into what is ours there."""
    if not is_below(name):
        raise UserError(f"{where}: {name!r} is no path below the folder of the set")


@functools.cache
def _hints(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _names(cls: type) -> list[str]:
    return [item.name for item in dataclasses.fields(cls)]


def _made(cls: type[T], values: Any, where: _Place) -> T:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected fields with values, found {type(values).__name__}")
    known = _names(typing.cast(Any, cls))
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            at = dataclasses.replace(where.of(name, values), field=where.field)
            raise UserError(f"{at}: there is no field {name}{hint}")
    needed = [
        item.name
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in needed if name not in values]:
        raise UserError(f"{where}: the field {missing[0]} is missing")
    hints = _hints(typing.cast(Any, cls))
    return cls(**{name: _value(value, hints[name], where.of(name, values)) for name, value in values.items()})


def _value(value: Any, hint: Any, where: _Place) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where} is {_shown(value)}, expected one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where} is {_shown(value)}, expected a list")
        return tuple(_value(item, arguments[0], where) for item in value)
    if origin is Mapping:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise UserError(f"{where} is {_shown(value)}, expected names with values")
        return {key: _value(item, arguments[1], where.of(key, value, ".")) for key, item in value.items()}
    if type(None) in arguments:
        return None if value is None else _value(value, arguments[0], where)
    if dataclasses.is_dataclass(hint):
        return _made(typing.cast(type, hint), value, where)
    if not isinstance(value, hint) or isinstance(value, bool):
        raise UserError(f"{where} is {_shown(value)}, expected {hint.__name__}")
    return value


def _shown(value: object) -> str:
    return one_line(repr(value))

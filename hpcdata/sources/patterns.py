"""Paths of a run's inputs from what people type: a path, a glob, a brace list, or a list of these.

Globs mean what they mean in Python's `glob`, but a folder that cannot be listed is an error: there it would be empty.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.base.units import split_at_commas
from hpcdata.sources.base import refusing_faults

_MOST_NAMES = 1_000_000
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:")


def expand_paths(patterns: str | Sequence[str]) -> list[str]:
    """Absolute paths of existing files and folders, in the order typed (globs sorted). Raises UserError."""
    names = [patterns] if isinstance(patterns, str) else list(patterns)
    if not any(name.strip() for name in names):
        raise UserError("data.raw_data_dir is empty: expected a path, a glob, a brace list, or a list of these")
    return [os.path.abspath(path) for name in names for path in _expand(name)]


def expand_braces(pattern: str) -> Iterator[str]:
    """`{a,b}` and `{000..575}` or `{0..9..3}` as a shell expands them, nested too; other braces stay as they are.

    Unlike in a shell, a comma in round brackets is part of a name: `{ai2d(cauldron,llava_format),chartqa}.json`.
    """
    for start, end in _brace_pairs(pattern):
        choices = _choices(pattern[start + 1 : end])
        if choices is not None:
            for choice in choices:
                for middle in expand_braces(choice):
                    yield from (pattern[:start] + middle + rest for rest in expand_braces(pattern[end + 1 :]))
            return
    yield pattern


def is_remote(name: str) -> bool:
    return bool(_REMOTE.match(name))


def remote_error(name: str) -> UserError:
    return UserError(f"{name} is remote, only local paths can be read: mount or copy it first")


def _expand(pattern: str) -> list[str]:
    if is_remote(pattern):
        raise remote_error(pattern)
    pattern = os.path.expanduser(pattern)
    if _kind(pattern):
        return [pattern]
    names = []
    for name in expand_braces(pattern):
        names.append(name)
        if len(names) > _MOST_NAMES:
            raise UserError(f"{pattern} expands to more than {_MOST_NAMES} names")
    found = [
        (name, [name] if not glob.has_magic(name) or _kind(name) else sorted({*_matches(name)} - {""}))
        for name in names
    ]
    missing = [name for name, paths in found if not paths or not all(map(_kind, paths))]
    if missing:
        raise _missing_error(pattern, missing, len(names))
    return [path for _, paths in found for path in paths]


def _matches(pattern: str) -> Iterator[str]:
    """The paths that a glob matches. Raises UserError for a folder that cannot be listed."""
    folder, _, last = pattern.rpartition("/")
    if pattern.startswith("/"):
        folder = folder or "/"
    if not glob.has_magic(last) and not glob.has_magic(folder):
        yield from [pattern] if _kind(pattern, follow=False) else []
        return
    for start in _matches(folder) if glob.has_magic(folder) else [folder]:
        if last == "**":
            yield from _below(start) if _kind(start or ".") == "folder" else ()
        elif glob.has_magic(last):
            names = fnmatch.filter(_listed(start), last)
            yield from (os.path.join(start, name) for name in names if last[0] == "." or name[0] != ".")
        elif _kind(start or ".") == "folder" if not last else _kind(os.path.join(start, last), follow=False):
            yield os.path.join(start, last)


def _below(folder: str) -> Iterator[str]:
    """A folder and all that is in it, hidden names left out."""
    yield os.path.join(folder, "")
    for name in _listed(folder):
        if name[0] != ".":
            path = os.path.join(folder, name)
            yield path
            if _kind(path) == "folder":
                yield from itertools.islice(_below(path), 1, None)  # all but itself


def _kind(path: str, *, follow: bool = True) -> str:
    """What is there, see `kind_of`. Raises UserError for a path that cannot be looked at."""
    with refusing_faults(path):
        return kind_of(path, follow=follow)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from None


def _missing_error(pattern: str, missing: list[str], num_names: int) -> UserError:
    if num_names > 1:
        return UserError(f"{len(missing)} of {num_names} inputs of {pattern} do not exist, the first is {missing[0]}")
    where = "" if os.path.isabs(pattern) else f" in {os.getcwd()}"
    if glob.has_magic(pattern):
        return UserError(f"no input matches {pattern}{where}")
    return UserError(f"input {pattern} does not exist{where}")


def _brace_pairs(pattern: str) -> Iterator[tuple[int, int]]:
    """(opening, closing) positions of braces, by their opening."""
    for start, character in enumerate(pattern):
        if character != "{":
            continue
        depth = 0
        for end in range(start, len(pattern)):
            depth += {"{": 1, "}": -1}.get(pattern[end], 0)
            if depth == 0:
                yield start, end
                break


def _choices(inside: str) -> Iterator[str] | list[str] | None:
    if match := _RANGE.fullmatch(inside):
        return _range(match[1], match[2], int(match[3] or 1))
    parts = split_at_commas(inside)
    return parts if len(parts) > 1 else None


def _range(first: str, last: str, step: int) -> Iterator[str]:
    """Numbers of one width if either end is zero-padded."""
    padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-").startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    direction = 1 if int(last) >= int(first) else -1
    numbers = range(int(first), int(last) + direction, direction * max(step, 1))
    return (f"{number:0{width}d}" for number in numbers)

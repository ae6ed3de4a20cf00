"""Mixes: LLaVA's lists of files, with the part of each that is taken.

    datasets:
      - json_path: /data/ai2d(cauldron,llava_format)/ai2d.json
        sampling_strategy: first:10%
      - json_path: sharegpt4v.jsonl
        sampling_strategy: random:0.5%

Strategies are `all` (also where none is given), `first:N`, `end:N` and `random:N`, with a number or a percentage, see
`order.sampling`. Files are of JSON, JSON lines or Parquet, with `data.mapping` also CSV and TSV. Paths are taken as
they are written: brackets, commas, plus, spaces and braces mean nothing. A relative one starts from the folder of the
mix or, where nothing is there, from the working directory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass

import yaml

from hpcdata.base import units
from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text
from hpcdata.base.reads import kind_of
from hpcdata.sources.base import CannotRead, refusing_faults
from hpcdata.sources.patterns import is_remote

ENDINGS = (".yaml", ".yml")
PATH, STRATEGY = "json_path", "sampling_strategy"
_LIST = "datasets"
_MERGE = "tag:yaml.org,2002:merge"
_MOST_BYTES = 1 << 20
_MOST_NAMED = 20
_FORM = "expected datasets: [{json_path: FILE, sampling_strategy: all}, ...]"
_Values = dict[str, yaml.Node]


@dataclass(frozen=True, kw_only=True)
class Entry:
    path: str
    """Absolute."""
    take: str
    take_seed: int
    """One for each file and each time that it is listed: other entries do not change what is drawn of it."""
    where: str
    """The mix, the line and the number of the entry, for messages."""
    unknown: tuple[str, ...] = ()
    """Keys that are not read."""


def is_mix(path: str) -> bool:
    """Whether a YAML file is such a list. Raises UserError for faults of the machine."""
    if not path.lower().endswith(ENDINGS):
        return False
    try:
        items = _items(path, _root(path))
        return any(PATH in _values(item, path) for item in items if isinstance(item, yaml.MappingNode))
    except CannotRead:
        raise
    except UserError:
        return False


def read_mix(path: str, *, seed: int = 0) -> list[Entry]:
    """The entries in order. seed: what `random` draws by. Raises UserError, with file, line and entry."""
    times: Counter[str] = Counter()
    found: list[Entry] = []
    missing: list[_NotThere] = []
    for number, item in enumerate(_items(path, _root(path)), 1):
        try:
            found.append(_entry(item, path, f"{path}, line {item.start_mark.line + 1}, entry {number}", seed, times))
        except _NotThere as error:
            missing.append(error)
    if missing:
        raise _all_of(missing)
    if not found:
        raise UserError(f"{path} lists no file: {_FORM}")
    return found


class _NotThere(UserError):
    """name: of the file, as it is listed."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def _all_of(missing: list[_NotThere]) -> UserError:
    """The first one, and the names of the others, so that all can be brought at once."""
    others = [error.name for error in missing[1:]]
    if not others:
        return missing[0]
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return UserError(
        f"{missing[0]}; nor {units.counted(len(others), 'other')}: {', '.join(others[:_MOST_NAMED])}{more}"
    )


def digest_of(path: str) -> str:
    """A sha256 of its bytes."""
    return hashlib.sha256(_bytes(path)).hexdigest()


def _entry(item: yaml.Node, path: str, where: str, seed: int, times: Counter[str]) -> Entry:
    from hpcdata.order.sampling import check_strategy, derived_seed

    if not isinstance(item, yaml.MappingNode):
        raise UserError(f"{where} is no mapping: {_FORM}")
    values = _values(item, where)
    name = values.get(PATH)
    if not isinstance(name, yaml.ScalarNode) or not name.value.strip():
        raise UserError(f"{where} has no {PATH}: {_FORM}")
    strategy = values.get(STRATEGY)
    if strategy is not None and not isinstance(strategy, yaml.ScalarNode):
        raise UserError(f"{where}: {STRATEGY} is no text, expected all, first:N, end:N or random:N")
    take = "".join(strategy.value.split()) if strategy is not None and not _is_null(strategy) else "all"
    try:
        check_strategy(take)
    except UserError as error:
        raise UserError(f"{where} ({name.value}): {error}") from None
    file = _located(name.value, path, where)
    mark = f"{os.path.basename(file)} {take}"
    times[mark] += 1
    return Entry(
        path=file,
        take=take,
        take_seed=derived_seed(seed, f"{mark}, time {times[mark]}") >> 1,  # fits an int64
        where=where,
        unknown=tuple(key for key in values if key not in (PATH, STRATEGY)),
    )


def _located(name: str, path: str, where: str) -> str:
    if is_remote(name):
        raise UserError(f"{where}: {name} is remote, only local paths can be read: mount or copy it first")
    expanded = os.path.expanduser(name)
    places = list(dict.fromkeys([os.path.join(os.path.dirname(os.path.abspath(path)), expanded), expanded]))
    for place in places:
        with refusing_faults(place):
            kind = kind_of(place)
        if kind == "folder":
            raise UserError(f"{where}: {place} is a folder, expected a file")
        if kind:
            return os.path.abspath(place)
    beside = "" if os.path.isabs(expanded) else f" beside {path}"
    raise _NotThere(f"{where}: {name} does not exist{beside}", name)


def _root(path: str) -> yaml.Node | None:
    data = _bytes(path)
    try:
        return yaml_text.compose(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def _bytes(path: str) -> bytes:
    with refusing_faults(path), open(path, "rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path} has more than {_MOST_BYTES} bytes, and is no list of files")
    return data


def _items(path: str, root: yaml.Node | None) -> list[yaml.Node]:
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is no mapping: {_FORM}")
    found = _values(root, path).get(_LIST)
    if not isinstance(found, yaml.SequenceNode):
        raise UserError(f"{path} has no list {_LIST}: {_FORM}")
    return found.value


def _values(node: yaml.MappingNode, where: str, known: dict[int, _Values] | None = None) -> _Values:
    """Keys that are texts, with those that `<<: *anchor` merges in. Raises UserError for a key that stands twice.

    known: of the mappings that are merged already, or are being merged.
    """
    known = {} if known is None else known
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = {}
    own, merged = _Values(), _Values()
    for key, value in node.value:
        if key.tag == _MERGE:
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(other, yaml.MappingNode):
                    raise UserError(f"{where}: {key.value} merges what is no mapping")
                merged = _values(other, where, known) | merged
        elif isinstance(key, yaml.ScalarNode):
            if key.value in own:
                raise UserError(f"{where}: {key.value} stands twice, in line {key.start_mark.line + 1} again")
            own[key.value] = value
    known[id(node)] = merged | own
    return known[id(node)]


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.tag == "tag:yaml.org,2002:null"

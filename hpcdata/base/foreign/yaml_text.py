"""YAML that others wrote -> values, in bounded time and memory.

A few bytes of aliases may stand for more values than a machine has memory; depth, numbers and dates may end a reader.
"""

from __future__ import annotations

from typing import Any

_MOST_VALUES, _MOST_LEVELS = 1 << 20, 100
_FEW_OPENINGS = 2000


def load(text: str | bytes, loader: Any = None) -> Any:
    """Its values; loader: a class of `yaml`, SafeLoader by default. Raises ValueError, in one line."""
    import yaml

    try:
        loader = loader or yaml.SafeLoader
        _require_few_levels(text, loader)
        reader = loader(text)
        node = _checked(reader.get_single_node())
        return None if node is None else reader.construct_document(node)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_line(error)) from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value in it cannot be read: {_line(error)}") from None


def compose(text: str) -> Any:
    """Its root as a node, None of an empty text. Raises ValueError, in one line."""
    import yaml

    try:
        return _checked(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_line(error)) from None


def _require_few_levels(text: str | bytes, loader: Any) -> None:
    """Raises YAMLError before a loader in C ends the process: it takes its stack for each level."""
    import yaml

    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    is_in_c = issubclass(loader, getattr(yaml, "CSafeLoader", ()))
    if not is_in_c or sum(data.count(mark) for mark in (b"[", b"{", b"-", b"?", b":")) < _FEW_OPENINGS:
        return
    level = 0
    for event in yaml.parse(text, Loader=loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > _MOST_LEVELS:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: it has more than {_MOST_LEVELS} levels")


def _line(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())


def _checked(root: Any) -> Any:
    import yaml

    known: dict[int, tuple[int, int] | None] = {}

    def measured(node: yaml.Node) -> tuple[int, int]:
        """(how many values it stands for, how many levels they have)."""
        if id(node) in known:
            if (found := known[id(node)]) is None:
                raise yaml.YAMLError(f"line {node.start_mark.line + 1}: an alias stands in what it is an alias of")
            return found
        known[id(node)] = None
        size = levels = 0
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        for item in inner:
            for part in item if isinstance(item, tuple) else (item,):
                found = measured(part)
                size, levels = size + found[0], max(levels, found[1])
        if size >= _MOST_VALUES or levels >= _MOST_LEVELS:
            what = f"{_MOST_LEVELS} levels" if levels >= _MOST_LEVELS else f"{_MOST_VALUES} values"
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: its aliases count, and it has more than {what}")
        known[id(node)] = (size + 1, levels + 1)
        return size + 1, levels + 1

    if root is not None:
        measured(root)
    return root

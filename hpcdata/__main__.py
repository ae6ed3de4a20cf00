"""hpcdata: raw multimodal data -> token shards -> training batches, on preemptible SLURM clusters.

hpcdata COMMAND ...         the same as python -m hpcdata.COMMAND ...
hpcdata COMMAND --help      what it does, its options and examples
hpcdata launch +experiments=quickstart        to begin with: the whole way in about a minute
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import DONE, EXIT_CODES, REFUSED, complain, run, say

ORDER = (
    *("launch", "preflight", "status", "logs", "resume", "cancel"),
    *("rejects", "combine", "verify", "convert", "unpack", "export", "replay", "visualize"),
    *("download", "verify-datasets", "card", "index", "completion"),
)
"""As a person needs them; commands that are not named here come last."""
_OTHER_NAMES = {
    **dict.fromkeys(("encode", "run", "start", "submit"), "launch"),
    **dict.fromkeys(("estimate", "cost"), "launch ... estimate=true"),
    "retry": "rejects OUT --retry",
    "prove": "verify OUT --prove N",
    "stop": "cancel",
    "report": "status",
    "watch": "status OUT --watch",
    "datasets": "download",
    "fetch": "download, or launch +experiments=fetch for lists of addresses",
    **dict.fromkeys(("describe", "datasheet"), "card"),
}
"""What people try, and what there is."""
_NO_COMMANDS = ("__init__", "__main__", "samples")


def commands() -> dict[str, str]:
    """Name -> what it does, of every command, read from the first lines of the modules without importing them."""
    found = {
        path.stem.replace("_", "-"): _first_line(path)
        for path in Path(__file__).parent.glob("*.py")
        if path.stem not in _NO_COMMANDS
    }
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else 99, item[0])))


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run(lambda: _main(given))


def _main(given: list[str]) -> int:
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help", "help"):
        say(_help())
        return DONE
    if name in ("-V", "--version"):
        from hpcdata.base.version import code_version

        say(f"hpcdata {code_version()}")
        return DONE
    name = name.replace("_", "-")
    if name not in commands():
        complain(f"{name} is no command{_suggestion(name)}; hpcdata --help lists them")
        return REFUSED
    code: int = importlib.import_module(f"hpcdata.{name.replace('-', '_')}").main(rest)
    return code


def _help() -> str:
    listed = commands()
    width = max(map(len, listed))
    lines = [f"    {name:<{width}}  {text}" for name, text in listed.items()]
    options = "    --version   which version this is\n    --help      this"
    return "\n\n".join([(__doc__ or "").strip(), "commands:\n" + "\n".join(lines), f"options:\n{options}", EXIT_CODES])


def _suggestion(name: str) -> str:
    import difflib

    if name in _OTHER_NAMES:
        return f": it is hpcdata {_OTHER_NAMES[name]}"
    close = difflib.get_close_matches(name, commands(), n=1, cutoff=0.5)
    return f": did you mean hpcdata {close[0]}?" if close else ""


def _first_line(path: Path) -> str:
    """`Verify: reads everything back.` -> `reads everything back`."""
    with open(path, encoding="utf-8") as file:
        line = file.readline().strip().strip('"')
    return line.partition(": ")[2].rstrip(".") or line


if __name__ == "__main__":
    sys.exit(main())

"""What all commands share: how options are spelled, how errors are told, and the exit codes.

Options are spelled with hyphens, `--allow-tmp`; underscores, as in `--allow_tmp`, are understood as well.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import os
import re
import shlex
import string
import sys
from argparse import Namespace as Options
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NoReturn

from hpcdata.base import files, units
from hpcdata.base.errors import Failed, Unfinished, UserError
from hpcdata.base.files import NO_ROOM

__all__ = ["DONE", "EXIT_CODES", "FAILED", "INTERRUPTED", "REFUSED", "UNFINISHED"]
__all__ += ["Options", "Parser", "complain", "path", "quoted", "run", "say", "to_type", "told"]

_PLAIN = frozenset(string.ascii_letters + string.digits + "/._-=+:,@% ")

DONE, FAILED, REFUSED, UNFINISHED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = """exit codes:
    0    done; status: all shards are committed
    1    failed: a task, a disk, the cluster; something is damaged, or too many inputs are rejected
    2    refused: the line, a setting or an input is not as it must be; the message says what to change
    3    unfinished: shards are missing; what is written is kept, and hpcdata resume goes on
    130  stopped by Ctrl-C (128 + N: by signal N, after a checkpoint)"""


def path(text: str) -> str:
    """The type of arguments that are paths: typed in quotes, they have `~` and `$VAR` as if a shell had read them.

    A name that is there with its dollar sign is meant as it is: so are the lines that commands print.
    """
    if not text.startswith("~") and os.path.lexists(text):
        return text
    try:
        return units.local_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Parser(argparse.ArgumentParser):
    """An argument parser whose options may be written with underscores, before, between or after other arguments.

    `doc`: the docstring of the command. `more`: gives a text for the end of the help, when somebody reads it.
    """

    def __init__(
        self, name: str, doc: str | None, *, prog: str = "hpcdata {}", more: Callable[[], str] | None = None
    ) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog.format(name), description=doc, formatter_class=formatter)
        self._more = more
        self._given: list[str] = []

    def add_run(self) -> None:
        self.add_argument("run", type=path, help="output directory of the run (data.token_output_dir)")

    def add_config_dir(self) -> None:
        what = "folder of presets: cluster/NAME.yaml, experiments/NAME.yaml; also $HPCDATA_CONFIG_PATH"
        self.add_argument("--config-dir", type=path, metavar="DIR", action="append", default=[], help=what)

    def add_json(self, what: str = "print one JSON object") -> None:
        self.add_argument("--json", action="store_true", help=what)

    def run(self, arguments: Sequence[str] | None, action: Callable[[Options], int]) -> int:
        """Does what the line says, `sys.argv` by default; returns the exit code."""
        return run(lambda: _act(action, self.parse_intermixed_args(arguments)))

    def format_help(self) -> str:
        self.epilog = "\n\n".join([*([self._more()] if self._more else []), EXIT_CODES])
        return super().format_help()

    def add_argument(self, *names, **how):  # type: ignore[no-untyped-def]
        if how.get("nargs") == "*":
            how.setdefault("default", [])  # without it argparse calls it required where another argument is missing
        return super().add_argument(*names, **how)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        given = list(sys.argv[1:] if args is None else args)
        self._given = [self._with_hyphens(argument) for argument in given]
        return super().parse_known_args(self._given, namespace)

    def error(self, message: str) -> NoReturn:
        super().error(message + "".join(map(self._meant, self._given)))

    def _meant(self, argument: str) -> str:
        """Of an option that there is not, the one that comes nearest."""
        name = argument.partition("=")[0]
        if not name.startswith("--") or any(option.startswith(name) for option in self._option_string_actions):
            return ""
        import difflib

        near = difflib.get_close_matches(name.replace("_", "-"), self._option_string_actions, 1)
        return f"; for {name}, did you mean {near[0]}?" if near else ""

    def _with_hyphens(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        hyphened = name.replace("_", "-")
        return hyphened + equals + value if hyphened in self._option_string_actions else argument


def _act(action: Callable[[Options], int], options: Options) -> int:
    with files.modes_like(Path(options.run)) if getattr(options, "run", None) else contextlib.nullcontext():
        return action(options)


def run(action: Callable[[], int]) -> int:
    """The exit code of a command; what a user can mend is told in one line, without a traceback."""
    for stream, own in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if stream is own and isinstance(stream, io.TextIOWrapper):  # not what a program has put in its place
            stream.reconfigure(errors=_NAMES)
    try:
        try:
            return action()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except (UserError, OSError) as error:
        complain(told(error))
        return exit_code(error)


def told(error: UserError | OSError) -> str:
    """What is said of an error that a person can mend."""
    if not isinstance(error, OSError):
        return str(error)
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno in NO_ROOM:
        remedy = "make it writable" if error.errno == errno.EROFS else "make room"
        what = where or "what is to be written"
        return f"{what} cannot be written: {error.strerror}; {remedy}, then type the same line again"
    if isinstance(error, PermissionError) and where:
        return f"{where}: {error.strerror}; have its mode or owner changed, or name another place"
    return str(error)


def say(text: object, *, file: IO[str] | None = None) -> None:
    """Prints what a command has to tell; control characters in foreign names are shown, not obeyed."""
    print(units.printable(text), file=file, flush=file is not None)


def complain(text: object) -> None:
    """Says on stderr what is wrong."""
    say(f"hpcdata: {text}", file=sys.stderr)


def require_command(words: Sequence[str]) -> None:
    """Ends `python -m hpcdata.X` where X does nothing by itself, and says what to run. words: the line as typed."""
    root = Path(__file__).parents[1]
    name = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    file = root.joinpath(*name.split(".")[1:]).with_suffix(".py")
    if not name.startswith(f"{root.name}.") or not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    if 'if __name__ == "__main__":' in text:
        return
    found = re.search(r"python -m hpcdata\.\w+( OUT)?( --[\w-]+)*", text)
    what = f"run {found[0]}" if found else "hpcdata --help lists the commands"
    complain(f"{name} does nothing by itself: {what}")
    sys.exit(REFUSED)


def exit_code(error: UserError | OSError) -> int:
    """Of a command that such an error has ended."""
    if isinstance(error, Unfinished):
        return UNFINISHED
    return FAILED if isinstance(error, Failed) or not isinstance(error, UserError) else REFUSED


def _as_named(error: UnicodeError) -> tuple[bytes, int]:
    """Bytes of file names that are not UTF-8 as they are, so that what is printed can be typed; others escaped."""
    assert isinstance(error, UnicodeEncodeError)
    found = bytearray()
    for letter in error.object[error.start : error.end]:
        is_byte = 0xDC80 <= ord(letter) <= 0xDCFF
        found += bytes([ord(letter) - 0xDC00]) if is_byte else letter.encode("ascii", "backslashreplace")
    return bytes(found), error.end


_NAMES = "hpcdata.names"
codecs.register_error(_NAMES, _as_named)


def to_type(command: str, path: Path | str, *words: str) -> str:
    """The line that a person types, in any folder: `python -m hpcdata.combine '/my data/out' --compact`.

    path: of the run or dataset. What a shell would not pass on as it is printed stands in `$'...'`.
    """
    return " ".join(["python", "-m", f"hpcdata.{command}", *map(quoted, (os.path.abspath(path), *words))])


def quoted(word: str) -> str:
    """As a shell takes it for one word; with control characters as `$'...'`, which bash, zsh and ksh understand."""
    if all(item.isprintable() or "\udc80" <= item <= "\udcff" for item in word):
        return shlex.quote(word)
    data = word.encode("utf-8", _NAMES)
    return "$'" + "".join(chr(item) if chr(item) in _PLAIN else f"\\{item:03o}" for item in data) + "'"

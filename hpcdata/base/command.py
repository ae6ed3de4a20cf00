"""What all commands share: how options are spelled, how errors are told, and the exit codes.

    0    done
    1    it did not work: the message says what to do; or something is unfinished, missing or not as promised
    2    the line could not be understood
    130  stopped by Ctrl-C (128 + N: by signal N, after a checkpoint)

Options are spelled with hyphens, `--allow-tmp`; underscores, as in `--allow_tmp`, are understood as well.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from hpcdata.base.errors import UserError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
_EXIT_CODES = "exit codes: 0 done, 1 it did not work or is not complete, 2 the line was not understood, 130 Ctrl-C"


class Parser(argparse.ArgumentParser):
    """An argument parser whose options may be written with underscores. `doc`: the docstring of the command."""

    def __init__(self, name: str, doc: str | None, *, epilog: str = "") -> None:
        super().__init__(
            prog=f"hpcdata {name}",
            description=doc,
            epilog=f"{epilog}\n{_EXIT_CODES}".lstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_run(self) -> None:
        self.add_argument("run", help="output directory of the run (data.token_output_dir)")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: ANN
        given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args([self._with_hyphens(argument) for argument in given], namespace)

    def _with_hyphens(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        hyphened = name.replace("_", "-")
        return hyphened + equals + value if hyphened in self._option_string_actions else argument


def run(action: Callable[[], int]) -> int:
    """The exit code of a command; what a user can mend is told in one line, without a traceback."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("hpcdata: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        print(f"hpcdata: {error}", file=sys.stderr)
        return FAILED


def wants_help(arguments: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(arguments)

"""A command of ours as a process of its own: what it answers with `--json`, or a UserError with its own words.

It has no terminal and gets no Ctrl-C, so the caller decides what an interrupt means. A process that nobody waits for
goes on when the calling Python ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from hpcdata.base.errors import UserError

_MARK = "hpcdata: "
_TAIL_LINES = 15


class Process:
    """A command at work."""

    def __init__(self, command: str, *arguments: str, given: str = "") -> None:
        """`given`: its standard input."""
        self.command = command
        self._answer, self._messages = _scratch(), _scratch()
        with _scratch() as text:
            text.write(given)
            text.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"hpcdata.{command}", *arguments],
                stdin=text,
                stdout=self._answer,
                stderr=self._messages,
                env=_environment(),
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Asks it to end after a checkpoint, and waits for that."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def answer(self) -> Any:
        """What it printed, once it has ended. Raises UserError with its message when it printed nothing."""
        self._answer.seek(0)
        try:
            return json.loads(self._answer.read())
        except ValueError:
            raise UserError(self.message()) from None

    def message(self) -> str:
        """Why it did not work: its error, else the last lines of its log."""
        self._messages.seek(0)
        lines = self._messages.read().splitlines()
        told = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
        if told:
            return told[-1]
        end = "\n  ".join(lines[-_TAIL_LINES:])
        return f"hpcdata {self.command} ended with exit code {self.exit_code}:\n  {end}"


def ask(command: str, *arguments: str, given: str = "") -> Any:
    """The answer of a command; an interrupt ends it. Raises UserError."""
    process = Process(command, *arguments, given=given)
    try:
        process.wait()
    finally:
        process.stop()
    return process.answer()


def options(**values: object) -> list[str]:
    """`accept_changed=True, reason=None, seed=3` -> `--accept-changed --seed 3`."""
    words: list[str] = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        words += [] if value is None or value is False else [option] if value is True else [option, str(value)]
    return words


def overrides(texts: Sequence[str]) -> list[str]:
    """Them as words of a command line, where what begins with a hyphen would be an option. Raises UserError."""
    for text in texts:
        if text.startswith("-"):
            raise UserError(f"{text!r} is not an override: expected key=value, such as data.resolution=256")
    return list(texts)


def _scratch() -> IO[str]:
    return tempfile.TemporaryFile("w+", errors="replace")


def _environment() -> dict[str, str]:
    """Ours, but for a SLURM job that the caller runs in: work that is stopped must not send that back to the queue."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith("SLURM_")}

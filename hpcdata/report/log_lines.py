"""The last lines of a log: which of them may be shown, and which one says what went wrong.

Only lines of known form are shown: those of hpcdata and of the scheduler, and tracebacks without the words of foreign
exceptions, which may quote captions or prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base import units

TAIL_BYTES = 256 * 2**10

_OURS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) \[(?P<who>.*?)\] (?P<message>.*)")
_SYSTEM = re.compile(
    r"(slurmstepd|srun|slurm_script|bash|hpcdata): |/\S+: line \d+: |Fatal Python error: |Current thread |"
    r"(Killed|Terminated|Segmentation fault|Bus error|Aborted|Illegal instruction)( \(core dumped\))?$"
)
_FRAME = re.compile(r'  File ".*", line \d+|Traceback \(most recent call last\):|    [\^~ ]+$')
_EXCEPTION = re.compile(
    r"(?P<type>[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Shard|Conflict|Sample)\b)(: (?P<text>.*))?"
)
_PLAIN_TYPES = re.compile(
    r"(\w+\.)*(UserError|OSError|FileNotFoundError|PermissionError|MemoryError|OutOfMemoryError|"
    r"ImportError|ModuleNotFoundError|TimeoutError|BrokenPipeError)"
)
"""Exceptions whose words are about files, memory and modules."""
_BROKEN = re.compile(
    r"(ModuleNotFoundError|ImportError): .*|\S*python[\d.]*: (No module named|can't open file) .*"
    r"|[\w.+-]+\.so[\w.]*: (cannot open shared object file|undefined symbol): .*|version `?[A-Z]+_[\w.]+'? not found.*"
    r"|(CUDA|cuDNN|NCCL|HIP|CUBLAS) (driver|runtime|error|initialization|version)\b[^'\"]*"
    r"|(Found no NVIDIA driver|The NVIDIA driver on your system is too old|No CUDA GPUs are available"
    r"|Torch not compiled with CUDA|Unexpected error from cuda)[^'\"]*"
    r"|The following module\(s\) are unknown: .*|Unable to locate a modulefile for .*"
    r"|Could not find conda environment: .*"
    r"|[\w./-]+: (command not found|Permission denied|cannot execute.*|bad interpreter.*)$"
)
"""What says that an environment is broken; of a line that holds it, only this part is shown."""


def writers(path: Path) -> set[str]:
    """`pid@host` of the processes whose lines are among the last."""
    return {match["who"] for line in _last_lines(path) if (match := _OURS.match(line))}


def read(path: Path | None, num_lines: int, raw: bool) -> tuple[tuple[str, ...], int, str]:
    """(lines to show, number of lines left out among them, the last error)."""
    lines = _last_lines(path) if path else []
    if raw:
        return tuple(units.one_line(line, 2000) for line in lines[-num_lines:]), 0, _last_error(lines)
    shown = [(number, text) for number, line in enumerate(lines) if (text := _presentable(line)) is not None]
    kept = shown[-num_lines:]
    first = kept[0][0] if kept else 0
    return tuple(units.one_line(text, 500) for _, text in kept), len(lines) - first - len(kept), _last_error(lines)


def _last_lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in (lines[1:] if size > TAIL_BYTES else lines) if line.strip()]


def _presentable(line: str) -> str | None:
    """The line as it may be shown; None for one that is of no known form."""
    if _OURS.match(line) or _SYSTEM.match(line) or _FRAME.match(line):
        return line
    if broken := _broken(line):
        return broken
    if match := _EXCEPTION.match(line):
        return line if _PLAIN_TYPES.fullmatch(match["type"]) else match["type"]
    return None


def _broken(line: str) -> str:
    found = _BROKEN.search(line)
    return found[0] if found else ""


def _last_error(lines: Sequence[str]) -> str:
    for line in reversed(lines):  # what the environment lacks decides, whatever the scheduler says after it
        ours = _OURS.match(line)
        if not ours and (broken := _broken(line)):
            return units.one_line(broken)
        if ours and ours["level"] in ("ERROR", "CRITICAL"):
            break
    for line in reversed(lines):
        ours = _OURS.match(line)
        if ours and ours["level"] in ("ERROR", "CRITICAL"):
            return units.one_line(ours["message"])
        if not ours and not _FRAME.match(line) and (text := _presentable(line)) is not None:
            return units.one_line(text)
    return ""

"""Poison: records that kill the process that decodes them (a segmentation fault, out of memory) are found and rejected.

An attempt notes in its folder where it is (`WorkNote`, one small write a batch). A successor that finds the note of an
attempt which did not leave in order suspects the batches that were in work there, and lets a child process decode
these, sample by sample: the child says which sample it begins, so its death names one. Whoever kills processes for
other reasons (preemption, a time limit) kills parent and child, and only deaths of a child that its parent survives
by `GRACE_S`, and that no stop signal explains, are counted. A record that killed `data.max_crashes` children alone
is rejected as `crash`; every other sample gets the pixels that the child has made of it, the same as ever.

    OUT/crashes/00003-of-00064.json   {"suspects": [48], "deaths": {"51": 1}}, removed with the commit

The child reads, decodes and tokenizes. The network that makes codes sees only squares of one size, so no record can
be special to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hpcdata import files
from hpcdata.encoders.examples import BATCHES_AHEAD, PixelOptions, PreparedBatch, load_images
from hpcdata.errors import UserError
from hpcdata.plan import RunPaths, ShardSpec, load_plan, load_runtime
from hpcdata.samples import BadSample, Reason, Record, Sample, TextPart
from hpcdata.shard import list_attempts, read_work_note, seconds_lost

log = logging.getLogger(__name__)

GRACE_S = 2.0
"""A parent that lives so long after its child was killed was not meant to die with it."""
MESSAGE = "the process that decodes it dies"
MIN_ALL_CRASHED = 4
"""So many samples in a row, and no survivor: then it is the machine that cannot decode."""


class Stopped(Exception):
    """A stop signal came while a child was at work."""


@dataclass(kw_only=True)
class CrashNotes:
    """What is known of crashes in one shard, kept from attempt to attempt."""

    path: Path
    suspects: set[int]
    """Positions in the shard where attempts died: the batches that were in work begin there."""
    deaths: dict[int, int]
    """Position in the shard -> children that died of this sample alone."""
    lost_s: float = 0.0
    """Work of the attempts that died since the last claim."""

    @classmethod
    def read(cls, root: Path, name: str) -> CrashNotes:
        path = root / "crashes" / f"{name}.json"
        try:
            values = files.read_json(path)
            suspects = {int(position) for position in values["suspects"]}
            deaths = {int(position): int(number) for position, number in values["deaths"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            suspects, deaths = set(), {}
        return cls(path=path, suspects=suspects, deaths=deaths)

    def save(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        values = {
            "suspects": sorted(self.suspects),
            "deaths": {str(key): self.deaths[key] for key in sorted(self.deaths)},
        }
        files.write_atomic(self.path, files.to_json(values))

    def suspect(self, position: int) -> None:
        if position not in self.suspects:
            self.suspects.add(position)
            self.save()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def find_suspects(paths: RunPaths, name: str) -> CrashNotes:
    """The notes on a shard, with the positions at which earlier attempts died. Call it before their folders go."""
    notes = CrashNotes.read(paths.root, name)
    for folder in list_attempts(paths.shards, name):
        position = read_work_note(folder)
        if position is not None:
            log.info(
                "shard %s: an attempt died at sample %d, its batches are decoded in a child process", name, position
            )
            notes.suspect(position)
            notes.lost_s += seconds_lost(folder)
    return notes


def split(resumed: int, count: int, suspects: set[int], batch_size: int) -> list[tuple[int, int, bool]]:
    """Cuts the samples `resumed` to `count` into (start, end, is suspected), ends aligned to batches."""
    width = (BATCHES_AHEAD + 1) * batch_size
    marked = [
        any(suspect <= start < suspect + width for suspect in suspects) for start in range(resumed, count, batch_size)
    ]
    pieces: list[tuple[int, int, bool]] = []
    for number, is_suspected in enumerate(marked):
        start = resumed + number * batch_size
        end = min(start + batch_size, count)
        if pieces and pieces[-1][2] == is_suspected:
            pieces[-1] = (pieces[-1][0], end, is_suspected)
        else:
            pieces.append((start, end, is_suspected))
    return pieces


class Trial:
    """Decodes suspected samples of one shard in child processes."""

    def __init__(
        self,
        output_dir: Path,
        spec: ShardSpec,
        notes: CrashNotes,
        *,
        max_crashes: int,
        should_stop: Callable[[], bool],
        on_death: Callable[[int, str], None],
    ) -> None:
        self._output_dir, self._spec, self._notes = output_dir, spec, notes
        self._max_crashes, self._should_stop, self._on_death = max_crashes, should_stop, on_death

    def batches(self, records: Iterator[Record], first: int, batch_size: int) -> Iterator[PreparedBatch]:
        """`records`: those of the shard's samples `first` on. Raises Stopped when a signal came meanwhile."""
        listed = list(records)
        results = self._decode(first, first + len(listed))
        crashed = [isinstance(result, BadSample) and result.reason is Reason.CRASH for result in results]
        if len(crashed) >= MIN_ALL_CRASHED and all(crashed):
            raise UserError(
                f"shard {self._spec.name}: every process that decodes one of the samples {first} to "
                f"{first + len(listed) - 1} dies: give the tasks more memory, or check the installation"
            )
        for start in range(0, len(listed), batch_size):
            end = start + batch_size
            yield PreparedBatch(records=listed[start:end], pixels=results[start:end])

    def _decode(self, first: int, end: int) -> list[list[np.ndarray] | BadSample]:
        results: list[list[np.ndarray] | BadSample] = []
        while (position := first + len(results)) < end:
            if self._notes.deaths.get(position, 0) >= self._max_crashes:
                results.append(BadSample(Reason.CRASH, MESSAGE))
                continue
            until = next((other for other in range(position, end) if self._is_condemned(other)), end)
            made, death = self._run_child(position, until)
            results += made
            if death is not None:
                self._count(position + len(made), death)
        return results

    def _is_condemned(self, position: int) -> bool:
        return self._notes.deaths.get(position, 0) >= self._max_crashes

    def _run_child(self, first: int, end: int) -> tuple[list[list[np.ndarray] | BadSample], str | None]:
        """The results of the samples that a child got through, and how it died, if it did."""
        command = [sys.executable, "-m", "hpcdata.poison", str(self._output_dir), self._spec.name, str(first), str(end)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
            assert child.stdout is not None
            made: list[list[np.ndarray] | BadSample] = []
            began = False
            try:
                while len(made) < end - first:
                    if self._should_stop():
                        raise Stopped
                    line = _read_line(child.stdout)
                    if line is None:
                        break
                    began = True
                    if "begins" not in line:
                        made.append(_read_result(line, child.stdout))
            except EOFError:
                pass  # it died while it handed pixels over
            finally:
                if len(made) == end - first or self._should_stop():
                    child.kill()
                child.stdout.close()
                code = child.wait()
        if len(made) == end - first:
            return made, None
        if not began:
            raise UserError(f"shard {self._spec.name}: a child process could not start to decode ({_describe(code)})")
        return made, _describe(code)

    def _count(self, position: int, death: str) -> None:
        if death == "SIGKILL":
            threading.Event().wait(GRACE_S)
        if self._should_stop():
            raise Stopped
        number = self._notes.deaths[position] = self._notes.deaths.get(position, 0) + 1
        self._notes.save()
        self._on_death(position, death)
        log.warning(
            "shard %s: sample %d killed the process that decodes it (%s), %d of %d times",
            *(self._spec.name, position, death, number, self._max_crashes),
        )


def _read_line(stream: IO[bytes]) -> dict[str, Any] | None:
    line = stream.readline()
    return json.loads(line) if line.endswith(b"\n") else None


def _read_result(line: dict[str, Any], stream: IO[bytes]) -> list[np.ndarray] | BadSample:
    if "reason" in line:
        return BadSample(Reason(line["reason"]), line["message"])
    return [_read_array(shape, stream) for shape in line["shapes"]]


def _read_array(shape: Sequence[int], stream: IO[bytes]) -> np.ndarray:
    size = int(np.prod(shape))
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return np.frombuffer(data, np.uint8).reshape(shape)


def _describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _child(output_dir: Path, name: str, first: int, end: int, out: IO[bytes]) -> None:
    """Says `begins` before a sample and hands its result over: lines of JSON, pixels as they are behind theirs."""
    from hpcdata.encode import read_shard
    from hpcdata.encoders import text

    plan, paths = load_plan(output_dir), RunPaths(output_dir)
    spec = next(spec for spec in plan.shards() if spec.name == name)
    options, path = PixelOptions.of(plan), load_runtime(output_dir).text.tokenizer
    tokenizer = text.build(plan.text, path) if plan.text and path else None
    records = read_shard(plan, paths, spec, skip=first)
    for position in range(first, end):
        _say(out, {"begins": position})
        record = next(records)
        try:
            images = load_images(record, options)
        except BadSample as error:
            _say(out, {"reason": str(error.reason), "message": error.message})
            continue
        if tokenizer is not None and isinstance(record, Sample):
            _try_texts(record, tokenizer)
        _say(out, {"shapes": [list(image.shape) for image in images]})
        for image in images:
            out.write(np.ascontiguousarray(image).tobytes())
        out.flush()


def _try_texts(record: Sample, tokenizer: Any) -> None:
    """Texts that are not allowed are rejected by the parent, with all others; only a death matters here."""
    from hpcdata.encoders.text import check_text

    with contextlib.suppress(BadSample):
        texts = [part.text for part in record.parts if isinstance(part, TextPart)]
        for value in texts:
            check_text(value)
        if texts:
            tokenizer.encode(texts)


def _say(out: IO[bytes], values: dict[str, Any]) -> None:
    out.write(json.dumps(values).encode() + b"\n")
    out.flush()


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the parent ends us; if it is gone, nobody reads what we write
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the child goes first, so that the parent can tell
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        _child(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

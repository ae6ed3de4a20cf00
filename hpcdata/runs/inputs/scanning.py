"""Scanning the inputs of a run: how many samples each holds, and where reading may start.

Every scanner is linear in what it reads, which has limits (`sources.limits`). Should one take far more CPU time than
the size of a file explains, planning ends with an error that names the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hpcdata import sources
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Failed, UserError
from hpcdata.config.schema import RunConfig
from hpcdata.runs.inputs.planned import PlannedInput
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.stage import find_stage
from hpcdata.sources import InputFile
from hpcdata.sources.base import CannotRead, refusing_faults
from hpcdata.sources.others import OtherFile, other_files

log = logging.getLogger(__name__)

MAX_SCAN_PROCESSES = 8
AGAIN_AFTER_S = 1.0
SMALL_INPUT_BYTES = 64 * 2**20
"""Below this the start of processes would take longer than scanning."""


LEAST_S, S_A_MEGABYTE = 120.0, 10.0
"""CPU time that a file may take: many times what the slowest scanner needs on a slow machine."""


def plan_inputs(paths: RunPaths, config: RunConfig, listed: Sequence[InputFile]) -> tuple[PlannedInput, ...]:
    """Scans the inputs, in processes when there are several, until `data.n_train_samples` are found."""
    started = time.monotonic()
    limit = config.data.n_train_samples
    planned: list[PlannedInput] = []
    total = 0
    for item, result in zip(listed, _scan_all(paths, config, listed), strict=False):
        kept = result.scan if limit is None else _limit(result.scan, limit - total)
        file, path, sha256 = result.file, Path(result.file.path), ""
        if path.is_relative_to(paths.inputs):
            with refusing_faults(str(path)):
                sha256 = sha256_file(path)
            file = dataclasses.replace(file, path=path.relative_to(paths.root).as_posix())
        total += kept.num_samples
        planned.append(
            PlannedInput(
                file=file,
                origin=item.path,
                size=result.size,
                mtime_ns=result.mtime_ns,
                scan=kept,
                sha256=sha256,
                others=result.others,
            )
        )
        if limit is not None and total >= limit:
            break
    if limit is None:
        sources.warn_of_differences(listed, [source.scan for source in planned])
    log.info("planned %d samples of %d files in %.1f s", total, len(planned), time.monotonic() - started)
    if num_left_out := sum(item.num_left_out for item in planned):
        log.info("left out by sampling: %d records of %d files", num_left_out, sum(map(_is_part, planned)))
    return tuple(planned)


def _scan_all(paths: RunPaths, config: RunConfig, listed: Sequence[InputFile]) -> Iterator[_Scanned]:
    """What each input turned out to be, in order, lazily."""
    tasks = [_ScanTask(file=file, folder=str(paths.inputs), config=config) for file in listed]
    num_processes = min(len(tasks), os.cpu_count() or 1, MAX_SCAN_PROCESSES)
    if num_processes < 2 or sum(_stat(file.path).st_size for file in listed) < SMALL_INPUT_BYTES:
        yield from map(_scan, tasks)
        return
    while tasks:
        num_done = 0
        with _processes(num_processes) as pool:
            try:
                for scanned in pool.map(_scan, tasks):
                    yield scanned
                    num_done += 1
            except BrokenProcessPool:
                log.warning("a process that scanned %s, or a file behind it, was killed", tasks[num_done].file.path)
                yield _scan_alone(tasks[num_done])
                num_done += 1
            finally:
                pool.shutdown(cancel_futures=True)
        tasks = tasks[num_done:]


def _processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, multiprocessing.get_context("spawn"))


def _scan_alone(task: _ScanTask) -> _Scanned:
    """In a process of its own, so that a file that kills it has a name."""
    with _processes(1) as pool:
        try:
            return pool.submit(_scan, task).result()
        except BrokenProcessPool:
            raise Failed(
                f"{task.file.path}: the process that scanned it was killed, by itself as well: the file is damaged, or "
                "needs more memory than there is. Launch again with more, or without it"
            ) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ScanTask:
    file: InputFile
    folder: str
    config: RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scanned:
    file: InputFile
    scan: sources.Scan
    size: int
    """Bytes of the file that is read: the listing's, for what a listing was made of."""
    mtime_ns: int
    """Of what the user named."""
    others: tuple[OtherFile, ...] = ()


def _scan(task: _ScanTask) -> _Scanned:
    """Reads the input, a second time where the machine did not let us. Raises UserError with the file's name."""
    try:
        return _scan_once(task)
    except CannotRead as error:
        log.warning("%s", error)
        time.sleep(AGAIN_AFTER_S)
        return _scan_once(task)


def _stat(path: str) -> os.stat_result:
    with refusing_faults(path):
        return os.stat(path)


def _scan_once(task: _ScanTask) -> _Scanned:
    before, root = _stat(task.file.path), os.path.dirname(task.folder)
    others = other_files(task.file, without=root)
    with _watched(task.file.path):
        options = find_stage(task.config.stage).options(task.config)
        file = sources.prepare(task.file, Path(task.folder), without=root, options=options)
        scan = sources.scan(file, every=task.config.data.shard_size, options=options)
    after = _stat(task.file.path)
    is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not is_same or others != other_files(task.file, without=root):
        raise UserError(f"{task.file.path} changed while it was read: launch again when nothing writes to it")
    return _Scanned(file=file, scan=scan, size=_stat(file.path).st_size, mtime_ns=before.st_mtime_ns, others=others)


@contextlib.contextmanager
def _watched(path: str) -> Iterator[None]:
    """Raises UserError when a file takes too much CPU time. Not for folders, nor where the timer is in use already."""
    is_free = signal.getsignal(signal.SIGPROF) == signal.SIG_DFL and not signal.getitimer(signal.ITIMER_PROF)[0]
    if not is_free or threading.current_thread() is not threading.main_thread() or os.path.isdir(path):
        yield
        return
    most = LEAST_S + S_A_MEGABYTE * _stat(path).st_size / 10**6

    def end(*_: object) -> None:
        raise UserError(f"{path}: planning it takes more than {most:.0f} s of CPU time: it is damaged, or made so")

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _is_part(item: PlannedInput) -> bool:
    return item.num_left_out > 0


def _limit(scan: sources.Scan, num_samples: int) -> sources.Scan:
    """The first `num_samples` of a scan."""
    if num_samples >= scan.num_samples:
        return scan
    return dataclasses.replace(
        scan,
        num_samples=num_samples,
        cuts=scan.cuts[: -(-num_samples // scan.every)],
        numbers=scan.numbers[: -(-num_samples // scan.every)],
        repeats=tuple(pair for pair in scan.repeats if pair[0] < num_samples),
        duplicates=tuple(position for position in scan.duplicates if position < num_samples),
    )

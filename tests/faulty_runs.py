"""Every source in whole runs under every fault of reading, in a process of its own: `test_read_faults.py` starts it.

    LD_PRELOAD=... python -m tests.faulty_runs LIBRARY FOLDER [CASE...]

A fault comes while the run is planned, while its task reads, or while a task goes on from a checkpoint; every stage.
Prints a JSON list of `Attack`s. HPCDATA_ALL_FAULTS: at the first, a middle and the last read, not at one alone.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.config.compose import compose
from hpcdata.config.schema import RunConfig
from hpcdata.runs.inputs import scanning
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.work.task import TaskOutcome, run_task
from tests import llava_tables
from tests.evidence import account
from tests.net.misbehaving import Server
from tests.readfaults import KINDS, LASTING, Calls, Injector
from tests.smallruns import StopAfter
from tests.sources.source_files import json_lines, write, write_tar
from tests.stages import url_lists
from tests.stages.url_lists import write_rows
from tests.trees import sha256_tree

NUM_SAMPLES = 12
WATCHED = "/inputs/"
"""Of the paths of raw files, and of what planning makes of them."""
_HOUR_S = 3600
Make = Callable[[Path], object]


@dataclasses.dataclass(kw_only=True)
class Attack:
    case: str
    stage: str
    point: str
    fault: str
    number: int
    """Of the read, open or look that fails first."""
    found: str
    """`same`, `refused` (and the same later), or what is wrong."""
    planned: int = 0
    lost: int = 0
    duplicated: int = 0
    wronged: int = 0
    """Samples that became rejects for the fault."""


def _members() -> list[tuple[str, bytes]]:
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        found = [(item.name, tar.extractfile(item)) for item in tar.getmembers()[: 2 * NUM_SAMPLES]]
        return [(name, file.read()) for name, file in found if file is not None]


def _tar(name: str) -> Make:
    return lambda folder: write_tar(folder / name, _members())


def _texts() -> list[str]:
    return [data.decode() for name, data in _members() if name.endswith(".txt")]


def _pictures(folder: Path) -> list[str]:
    for name, data in _members():
        write(folder / name, data)
    return sorted(name for name, _ in _members() if not name.endswith(".txt"))


def _lines(name: str) -> Make:
    return lambda folder: write(folder / name, json_lines({"text": text} for text in _texts()))


def _pairs(folder: Path, name: str, *, as_array: bool = False) -> None:
    rows = [
        {"image": f"p/{image}", "caption": text} for image, text in zip(_pictures(folder / "p"), _texts(), strict=True)
    ]
    write(folder / name, json.dumps(rows).encode() if as_array else json_lines(rows))


def _parquet(folder: Path) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": _texts()}), folder / "x.parquet", row_group_size=4)


def _parquet_of_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    held = [{"bytes": data, "path": name} for name, data in _members() if not name.endswith(".txt")]
    pq.write_table(pa.table({"image": held, "text": _texts()}), folder / "x.parquet", row_group_size=4)


def _parquet_of_talks(folder: Path) -> None:
    pictures = [data for name, data in _members() if not name.endswith(".txt")]
    rows = [llava_tables.row(f"{number}", data) for number, data in enumerate(pictures)]
    llava_tables.write(folder / "x.parquet", rows)


def _metadata(folder: Path) -> None:
    rows = [f'{image},"{text}"\n' for image, text in zip(_pictures(folder), _texts(), strict=True)]
    write(folder / "metadata.csv", "".join(["file_name,text\n", *rows]).encode())


def _indexed(folder: Path) -> None:
    write_tar(folder / "x.tar", _members())
    index = {"wids_version": 1, "shardlist": [{"url": "x.tar", "nsamples": NUM_SAMPLES}]}
    write(folder / "index.json", json.dumps(index).encode())


def _documents(folder: Path) -> None:
    for number, text in enumerate(_texts()):
        write(folder / f"{number:02d}.txt{('', '.gz', '.zst')[number % 3]}", text.encode())


@functools.cache
def _server() -> Server:
    return Server().__enter__()  # to the end of this process


def _urls(folder: Path) -> None:
    write_rows(folder / "x.jsonl", [url_lists.row(_server(), number) for number in range(NUM_SAMPLES)])


CASES: dict[str, tuple[Make, str]] = {
    "tar": (_tar("x.tar"), ""),
    "tar.gz": (_tar("x.tar.gz"), ""),
    "index": (_indexed, ""),
    "pairs": (lambda folder: _pairs(folder, "x.jsonl"), "x.jsonl"),
    "pairs.gz": (lambda folder: _pairs(folder, "x.jsonl.gz"), "x.jsonl.gz"),
    "array": (lambda folder: _pairs(folder, "x.json", as_array=True), "x.json"),
    "pictures": (lambda folder: _pictures(folder), ""),
    "lines": (_lines("x.jsonl"), ""),
    "lines.gz": (_lines("x.jsonl.gz"), ""),
    "lines.zst": (_lines("x.jsonl.zst"), ""),
    "parquet": (_parquet, ""),
    "parquet of pictures": (_parquet_of_pictures, ""),
    "parquet of talks": (_parquet_of_talks, ""),
    "metadata": (_metadata, ""),
    "documents": (_documents, ""),
    "urls": (_urls, "x.jsonl"),
}
"""Name -> how its files are made, and which of them is named as the input (all: the folder)."""
READY = [name for name in CASES if name != "urls"]
"""Whose pictures need not be fetched before they are read."""
_STAGES = {"parquet of talks": ("convert",), "urls": ("fetch",)}
_TEXT_ONLY = ("lines", "lines.gz", "lines.zst", "parquet", "documents")


class _Case:
    """One source under one stage."""

    def __init__(self, injector: Injector, name: str, stage: str, folder: Path) -> None:
        self._injector, self._name, self._stage, self._folder = injector, name, stage, folder
        make, named = CASES[name]
        self._source = folder / "inputs" / named
        make(folder / "inputs")
        soon = time.time() + _HOUR_S  # a stream of a file that is so new is not left open for the next shard
        for path in (folder / "inputs").rglob("*"):
            os.utime(path, (soon, soon))
        self._num_runs, self._all = 0, "HPCDATA_ALL_FAULTS" in os.environ
        self._good = self._planned(folder / "good")
        assert _work(self._good) is TaskOutcome.FINISHED
        self._plan, self._tree = load_plan(self._good), sha256_tree(self._good / "shards")
        assert account(self._good).planned == NUM_SAMPLES

    def attacks(self) -> Iterator[Attack]:
        for calls in get_args(Calls):
            for point, begin, attack in (
                ("planning", self._fresh, self._plan_under),
                ("reading", lambda: self._planned(self._fresh()), self._work_under),
                ("going on", self._interrupted, self._work_under),
            ):
                run = begin()
                self._injector.watch(_watched(calls), calls=calls)
                attack(run)
                num_calls = self._injector.stop()
                shutil.rmtree(run, ignore_errors=True)
                if not num_calls:
                    continue
                for number in sorted({0, num_calls // 2, num_calls - 1} if self._all else {num_calls // 2}):
                    for fault, kind, count in _faults(calls):
                        run = begin()
                        self._injector.set(_watched(calls), first=number, count=count, kind=kind, calls=calls)
                        yield self._judged(run, attack, point, fault, number)
                        shutil.rmtree(run, ignore_errors=True)

    def _judged(self, run: Path, attack: Callable[[Path], str], point: str, fault: str, number: int) -> Attack:
        found = Attack(case=self._name, stage=self._stage, point=point, fault=fault, number=number, found="")
        try:
            found.found = attack(run)
        except Exception as error:
            self._injector.stop()
            found.found = f"raised {error!r}"
            return found
        self._injector.stop()
        if point == "planning":
            is_planned = (run / "plan.json").exists()  # also where it is a last look that fails
            if load_plan(run).inputs != self._plan.inputs if is_planned else found.found == "same":
                found.found = "a plan that is not whole"
            self._planned(run)
        if _work(run) is not TaskOutcome.FINISHED:
            found.found = "not finished when nothing fails any more"
        counted = account(run)
        found.planned, found.lost, found.duplicated = counted.planned, counted.lost, counted.duplicated
        found.lost += NUM_SAMPLES - counted.planned
        found.wronged = sum(1 for _ in rows_of(run)) - sum(1 for _ in rows_of(self._good))
        if sha256_tree(run / "shards") != self._tree:
            found.found = "other shards"
        return found

    def _plan_under(self, run: Path) -> str:
        try:
            prepare(self._config(run))
        except UserError as error:
            return "refused" if str(self._folder) in str(error) else f"refused without a name: {error}"
        return "same" if load_plan(run).inputs == self._plan.inputs else "another plan"

    def _work_under(self, run: Path) -> str:
        if _work(run) is TaskOutcome.FINISHED:
            return "same"
        events = "".join(path.read_text() for path in run.glob("ledger/*"))
        return "refused" if WATCHED.rstrip("/") in events else "refused without a name"

    def _fresh(self) -> Path:
        self._num_runs += 1
        return self._folder / f"run-{self._num_runs}"

    def _planned(self, run: Path) -> Path:
        prepare(self._config(run))
        return run

    def _interrupted(self) -> Path:
        run = self._planned(self._fresh())
        run_task(run, StopAfter(4))  # type: ignore[arg-type]
        return run

    def _config(self, run: Path) -> RunConfig:
        text_only = self._name in _TEXT_ONLY
        fetched = url_lists.FETCH if self._stage == "fetch" else ()
        return compose(
            [
                f"data.raw_data_dir={self._source}",
                f"data.token_output_dir={run}",
                "text.tokenizer=embedded",
                f"image.tokenizer={'none' if text_only else 'embedded'}",
                f"data.source={'text' if text_only else 'auto'}",
                "data.resolution=32",
                "data.shard_size=8",
                "loader.batch_size=2",
                "data.save_tmp_interval=0.000001",
                f"stage={self._stage}",
                *fetched,
            ]
        )


def _watched(calls: Calls) -> str:
    """Looks at the folder of the inputs count, too."""
    return WATCHED.rstrip("/") if calls == "looks" else WATCHED


def _faults(calls: Calls) -> Iterator[tuple[str, int, int]]:
    """(name, kind, how many in a row). What a second read mends is tried in tests/sources/faulty_reads.py."""
    if calls != "reads":
        yield f"EIO of {calls}", errno.EIO, 1
        yield f"ESTALE of {calls}", errno.ESTALE, 1
        return
    for fault in ("EIO", "ESTALE", "ENOMEM"):
        yield fault, KINDS[fault], 1
    for fault in ("half of the bytes", "no bytes"):
        yield f"{fault}, lasting", KINDS[fault], LASTING


def fail_each_look(library: str, source: str, *arguments: str) -> None:
    """Prints, as JSON, what planning says when its first look at the source fails, its second, and so on."""
    injector, said, config = Injector(Path(library)), list[str](), compose([*arguments])
    scanning.AGAIN_AFTER_S = 0.0
    out, sys.stdout = sys.stdout, io.StringIO()
    while True:
        shutil.rmtree(config.data.token_output_dir, ignore_errors=True)
        injector.set(source, first=len(said), count=1, kind=errno.EIO, calls="looks")
        try:
            prepare(config)
            said.append("")
        except UserError as error:
            said.append(str(error))
        if injector.stop() < len(said):
            break
    json.dump(said, out)


def _work(run: Path) -> TaskOutcome:
    return run_task(run, StopAfter())  # type: ignore[arg-type]


def main() -> None:
    library, root, *names = sys.argv[1:]
    out, sys.stdout = sys.stdout, io.StringIO()
    os.fsync = lambda _: None  # no power is lost here
    scanning.AGAIN_AFTER_S = 0.0
    injector = Injector(Path(library))
    found = [
        dataclasses.asdict(attack)
        for name in names or CASES
        for stage in _STAGES.get(name, ("tokenize", "copy", "measure"))
        for attack in _Case(injector, name, stage, Path(root) / f"{name}-{stage}").attacks()
    ]
    json.dump(found, out)


if __name__ == "__main__":
    main()

"""Small real runs for tests: the embedded pictures and tokenizers, in this process or in processes of their own."""

from __future__ import annotations

import copy
import dataclasses
import functools
import glob
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpcdata import embedded
from hpcdata.config.compose import compose
from hpcdata.config.presets import VARIABLE
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.replacing import is_nothing_written
from hpcdata.work.task import TaskOutcome, run_task
from tests.stopping import start_stopping

_PLAIN_PATH = re.compile(r"/[\w/.-]+")
_VARIES = re.compile(r".*[~$]|\+*data\.(raw_data_dir|token_output_dir)=", re.DOTALL)


class StopAfter:
    """Asks the task to stop once it has been polled `polls` times."""

    def __init__(self, polls: int | None = None) -> None:
        self._left = polls

    @property
    def received(self) -> signal.Signals | None:
        if self._left is None:
            return None
        self._left -= 1
        return signal.SIGTERM if self._left < 0 else None


def small_arguments(output_dir: Path, *overrides: str, source: str | Path | None = None) -> list[str]:
    """24 pictures of 32 pixels in 4 shards, batches of 4 samples, a checkpoint after every batch, as overrides."""
    return [
        f"data.raw_data_dir={source or embedded.path('quickstart.tar')}",
        f"data.token_output_dir={output_dir}",
        "text.tokenizer=embedded",
        "image.tokenizer=embedded",
        "data.resolution=32",
        "data.block_size=16",
        "data.shard_size=7",
        "data.n_train_samples=24",
        "loader.batch_size=4",
        "data.save_tmp_interval=0.000001",
        *overrides,
    ]


def long_arguments(folder: Path, *overrides: str) -> list[str]:
    """200,000 texts in 2 shards of `folder/run`: some seconds of work whatever the machine, as overrides."""
    source = folder / "texts.jsonl"
    source.write_text("".join(f'{{"text": "{f"the text {number} " * 12}"}}\n' for number in range(200_000)))
    changed = {"data.n_train_samples": "200000", "data.shard_size": "100000", "image.tokenizer": "none"}
    given = [item.partition("=") for item in small_arguments(folder / "run", source=source)]
    return [f"{key}={changed.get(key, value)}" for key, _, value in given] + ["data.source=text", *overrides]


def small_config(output_dir: Path, *overrides: str, source: str | Path | None = None) -> RunConfig:
    """As composed from `small_arguments`. Hydra takes a tenth of a second, so it reads equal overrides once."""
    places = str(output_dir), str(source or embedded.path("quickstart.tar"))
    if not all(map(_PLAIN_PATH.fullmatch, places)) or any(map(_VARIES.match, overrides)):
        return compose(small_arguments(output_dir, *overrides, source=source))
    config = _composed(os.environ.get(VARIABLE), overrides)
    data = dataclasses.replace(config.data, token_output_dir=places[0], raw_data_dir=places[1])
    return copy.deepcopy(dataclasses.replace(config, data=data))


@functools.cache
def _composed(presets: str | None, overrides: tuple[str, ...]) -> RunConfig:
    return compose(small_arguments(Path("/out"), *overrides, source="/in"))


def small_run(output_dir: Path, *overrides: str, source: str | Path | None = None) -> Plan:
    """Plans and runs it to the end in this process."""
    plan = prepare(small_config(output_dir, *overrides, source=source))
    assert run_task(output_dir, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    return plan


def begin(output_dir: Path) -> None:
    """Works on a planned run until there is a checkpoint: from then on its plan is fixed."""
    assert run_task(output_dir, StopAfter(8)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    assert not is_nothing_written(RunPaths(output_dir))


def start_task(output_dir: Path, *, stops_at: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """One array task as a process, its output in `<output_dir>.log`; `stops_at` as `start_stopping` has it."""
    arguments = ["-m", "hpcdata.cluster.task", str(output_dir)]
    with open(f"{output_dir}.log", "ab") as log:
        options: dict[str, Any] = {"stdout": log, "stderr": log, "env": {**os.environ, **environment}}
        if stops_at is not None:
            return start_stopping(arguments, f"{glob.escape(str(output_dir))}/{stops_at}", **options)
        return subprocess.Popen([sys.executable, *arguments], **options)

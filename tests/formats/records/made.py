"""Datasets of copied records for tests of their exports, and the readers of other systems in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.samples import ImagePart, Sample, TextPart
from hpcdata.sources import Options, list_inputs, prepare, read, scan
from tests.smallruns import small_run

TARS = ("stage=copy", "text.tokenizer=null", "image.tokenizer=null", "data.n_train_samples=null")
LINES = (*TARS, "copy.format=jsonl")


def copied(folder: Path, *overrides: str, source: str | Path | None = None) -> Path:
    """A combined run of `stage=copy`."""
    small_run(folder, *overrides, source=source)
    combine(folder, CombineOptions())
    return folder


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read_with(variable: str, program: str, *arguments: object) -> object:
    """What a program prints last, as JSON, with the packages in the folder that an environment variable names."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder with other systems' readers (tests/run.sh installs it)")
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def parts_of(path: Path, *, needs_image: bool = True) -> Counter:
    """What our sources read of a file or folder: of each record, its texts with their speakers, and its pictures."""
    found = Counter[tuple]()
    options = Options(needs_image=needs_image, keep_image_marker=False)
    with tempfile.TemporaryDirectory() as folder:
        for listed in list_inputs(str(path), "auto"):
            file = prepare(listed, Path(folder))
            known = scan(file, every=8, options=options)
            for record in read(file, known, first=0, count=known.num_samples, options=options):
                assert isinstance(record, Sample), record
                found[tuple(map(_plain, record.parts))] += 1
    return found


def _plain(part: TextPart | ImagePart) -> tuple:
    if isinstance(part, TextPart):
        return part.role.name, part.text, part.loss
    return ("PICTURE", part.blob.read(max_bytes=2**20))

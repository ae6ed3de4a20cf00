"""Small exports for tests, and what their rows are to be: by a plain loop over examples."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdata.cluster.passing.through import Passed, run_through
from hpcdata.config.compose import compose
from hpcdata.config.schema import RunConfig
from hpcdata.samples import Example, Kind, Role
from tests.loading import made

SHIFT, EOS = 32001, 2
"""Of the datasets that `made` makes."""


def dataset(folder: Path, examples: Sequence[Example] | None = None, **manifest: Any) -> Path:
    """Uneven parts, with an empty one."""
    return made.make_dataset(folder, made.split(examples or mixed()), id_dtype="int32", **manifest)


def mixed() -> list[Example]:
    """Pairs, texts, a conversation of two pictures, a row of pictures alone."""
    examples = made.pairs(45, max_text=30)
    odd = [
        (made.text(5, 6, 7, role=Role.USER, loss=False), made.image(1, 2, 3, 4), made.text(8, role=Role.ASSISTANT)),
        (made.image(*range(9)), made.image(*range(6), height=2, width=3), made.text(31999)),
        (made.image(0, 0, 0, 16383),),
        (made.text(*range(300)),),
    ]
    return examples + [
        Example(index=1000 + number, key=f"odd/{number}", spans=spans) for number, spans in enumerate(odd)
    ]


def config(source: Path, out: Path, name: str, *overrides: str) -> RunConfig:
    """Shards of 20 rows, several pieces each."""
    return compose(
        [
            "stage=export",
            f"data.raw_data_dir={source}",
            f"data.token_output_dir={out}.run",
            f"export.out={out}",
            f"export.format={name}",
            "data.shard_size=20",
            "export.file_bytes=600",
            *overrides,
        ]
    )


def export(source: Path, out: Path, name: str, *overrides: str) -> Passed:
    """In this process."""
    return run_through(config(source, out, name, *overrides))


def sequence(
    example: Example,
    *,
    bos: int | None = None,
    eod: int | None = None,
    begin: int | None = None,
    end: int | None = None,
    shift: int = SHIFT,
) -> tuple[list[int], list[int], list[int]]:
    """(ids, modality, loss mask) of a row."""
    ids, modality, loss = ([bos], [0], [0]) if bos is not None else ([], [], [])
    for span in example.spans:
        is_image = span.kind == Kind.IMAGE
        values = [int(value) + shift * is_image for value in span.ids]
        before, after = ([item] if is_image and item is not None else [] for item in (begin, end))
        ids += before + values + after
        modality += [0] * len(before) + [int(is_image)] * len(values) + [0] * len(after)
        loss += [0] * len(before) + [int(span.loss)] * len(values) + [0] * len(after)
    if eod is not None:
        ids, modality, loss = [*ids, eod], [*modality, 0], [*loss, 1]
    return ids, modality, loss


def read_by(variable: str, program: str, *arguments: object) -> str:
    """What a program prints that imports the packages of the folder that an environment variable names."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable}: a folder of packages, see tests/run.sh")
    environment = {**os.environ, "PYTHONPATH": folder, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.splitlines()[-1]


def positions(num_rows: int, seed: int | None) -> list[int]:
    """The rows of the dataset in the order of the export, for tests that do not care how it is drawn."""
    from hpcdata.order.permutation import keys_for, permute

    if seed is None:
        return list(range(num_rows))
    return permute(np.arange(num_rows), num_rows, keys_for(f"export seed={seed}")).tolist()

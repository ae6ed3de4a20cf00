"""Stored measures, and datasets of very many of them.   pytest tests/multimodal/datasets/test_measured.py"""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.dataset.partlist import Part, Parts
from hpcdata.multimodal import MeasuredDataset, get_dataset
from hpcdata.multimodal.datasets.columns import SCHEMA, Measured, laid_out, measures_at, stored_content
from hpcdata.multimodal.values import Measure, Measures
from hpcdata.runs.plan import load_plan
from tests.multimodal.test_values import measures
from tests.smallruns import small_run
from tests.sources.source_files import json_lines, write

LOOK = """
import sys
import numpy as np
from hpcdata.multimodal.datasets.measured import MeasuredDataset

dataset = MeasuredDataset(sys.argv[1])
dataset.measures(np.random.default_rng(0).integers(0, len(dataset), 1000))
print(len(dataset), open("/proc/self/statm").read().split()[1])
"""


@settings(max_examples=30, deadline=None)
@given(some=st.lists(measures(), max_size=5), order=st.randoms(use_true_random=False))
def test_measures_are_stored_and_read_back_in_any_order(some: list[Measure], order) -> None:
    some = [item for item in some if all(item.num_tokens)]  # a branch has a turn
    samples = [Measured(index=n, key=f"k{n}", seek=n * 9, measure=item) for n, item in enumerate(some)]
    columns = laid_out(samples, num_spans=0, num_key_bytes=0)
    rows = [order.randrange(len(some)) for _ in range(7)] if some else []
    at = np.array(rows, np.int64)
    found = measures_at(columns, at, columns["samples/first_span.memmap"][at], "me")
    expected = Measures.of([some[row] for row in rows], "me")
    for name, column in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
    assert [stored_content(columns, row) for row in range(len(some))] == [sample.content() for sample in samples]


def test_columns_go_on_where_a_shard_ends() -> None:
    measure = Measure(sizes=((1, 2),), num_tokens=((3,),), num_learned=((1,),), num_kept=(1,), num_shared=1)
    columns = laid_out([Measured(index=5, key="abc", seek=1, measure=measure)] * 2, num_spans=10, num_key_bytes=7)
    assert columns["samples/first_span.memmap"].tolist() == [10, 12]
    assert columns["samples/first_key.memmap"].tolist() == [7, 10]
    assert laid_out([], num_spans=10, num_key_bytes=7)["spans/size.memmap"].shape == (0, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    rows = [{"conversations": [{"from": "human", "value": f"{n}?"}, {"from": "gpt", "value": "!"}]} for n in range(5)]
    write(folder / "x.jsonl", json_lines(rows))
    small_run(folder / "run", "stage=measure", "image.tokenizer=null", "data.shard_size=2", source=folder / "x.jsonl")
    combine(folder / "run", CombineOptions())
    return folder / "run"


def test_it_is_a_name_and_is_given_to_other_processes(run: Path) -> None:
    dataset = get_dataset(run, split="train", sample=4)
    assert isinstance(dataset, MeasuredDataset)
    copied = pickle.loads(pickle.dumps(dataset))
    assert (len(copied), copied[3]) == (4, dataset[3])
    assert copied.fingerprint() == dataset.fingerprint() != MeasuredDataset(run).fingerprint()
    assert [message["content"] for message in dataset[3]["messages"]] == ["3?", "!"]
    with pytest.raises(UserError, match="has no split test"):
        get_dataset(run, split="test")


def test_stored_lengths_are_of_no_use_where_examples_are_others_than_those_measured(run: Path) -> None:
    class Other(MeasuredDataset):
        def get(self, item, rng):
            return {**super().get(item, rng), "style": "vqa2"}

    assert MeasuredDataset(run).measures([0]).written_by == load_plan(run).config.measure.written_by
    assert MeasuredDataset(run, style="vqa2").measures([0]).written_by == ""
    assert Other(run).measures([0]).written_by == ""


def test_a_dataset_that_lies_elsewhere_asks_for_its_run(run: Path, tmp_path: Path) -> None:
    combine(run, CombineOptions(output_dir=str(tmp_path / "elsewhere")))
    with pytest.raises(UserError, match=r"lies in no run.*give run="):
        MeasuredDataset(tmp_path / "elsewhere")
    assert MeasuredDataset(tmp_path / "elsewhere", run=run)[2] == MeasuredDataset(tmp_path / "elsewhere", run=run)[2]
    (tmp_path / "elsewhere/columns/spans/size.memmap").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"size\.memmap has 4 bytes, expected \d+: combine its run again"):
        MeasuredDataset(tmp_path / "elsewhere", run=run)


def very_large(run: Path, folder: Path, *, num_rows: int, num_files: int) -> None:
    """A run whose columns are full of holes, with a true plan and manifest."""
    plan, manifest = load_plan(run), read_manifest(run)
    (one,), per_file, size = plan.inputs, num_rows // num_files, 32768
    config = dataclasses.replace(plan.config, data=dataclasses.replace(plan.config.data, shard_size=size))
    inputs = []
    for number in range(num_files):
        file = dataclasses.replace(one.file, label=f"x{number:05d}.jsonl")
        scan = dataclasses.replace(
            one.scan, num_samples=per_file, every=size, cuts=tuple(range(0, per_file * 500, size * 500))
        )
        inputs.append(dataclasses.replace(one, file=file, scan=scan))
    plan = dataclasses.replace(plan, config=config, inputs=tuple(inputs), joins_inputs=True)
    counts = dataclasses.replace(manifest.counts, inputs=num_rows, written=num_rows, rejected=Counter())
    parts = Parts.of(
        Part(
            path=f"parts/{name}",
            shard=number,
            samples=(rows := min(size, num_rows - number * size)),
            spans=4 * rows,
            tokens=0,
            key_bytes=0,
            content_digest="0" * 64,
        )
        for number, name in enumerate(plan.shard_names)
    )
    manifest = dataclasses.replace(manifest, parts=parts, counts=counts, fingerprint=plan.fingerprint)
    write(folder / "plan.json", plan.to_json())
    write(folder / "dataset/manifest.json", manifest.to_json())
    for column in SCHEMA.columns:
        if column.table != "keys":
            rows = num_rows * (4 if column.table == "spans" else 1)
            path = write(folder / "dataset/columns" / column.path, b"")
            with open(path, "wb") as file_:
                file_.truncate(rows * column.row_bytes)


@pytest.mark.slow
def test_a_hundred_million_rows_take_less_than_100_mb(run: Path, tmp_path: Path) -> None:
    very_large(run, tmp_path / "large", num_rows=100_000_000, num_files=1000)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path / "large")], capture_output=True, text=True, check=True
    )
    num_rows, pages = map(int, done.stdout.split())
    assert num_rows == 100_000_000
    assert pages * 4096 < 100e6

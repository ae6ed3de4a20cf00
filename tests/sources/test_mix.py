"""Lists of JSON files and the parts of them that are taken.   python -m pytest tests/sources/test_mix.py"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.formats.records.laying_out import export_records
from hpcdata.multimodal import MeasuredDataset, SourceDataset, make_loader
from hpcdata.order.sampling import subset
from hpcdata.report.status import Observer
from hpcdata.report.summary import describe
from hpcdata.runs.planning import prepare
from hpcdata.samples import Reject
from hpcdata.sources import InputFile, Options, at_random, list_inputs, read, scan
from hpcdata.sources import prepare as prepare_input
from hpcdata.sources.base import CannotRead, refusing_faults
from hpcdata.sources.mixes import entries
from hpcdata.sources.mixes.entries import is_mix
from tests.base.foreign.test_yaml_text import BOMB
from tests.formats.records.made import TARS, copied, parts_of
from tests.smallruns import StopAfter, begin, small_config, small_run
from tests.sources.source_files import json_lines, keys, read_all, summary, write
from tests.work.test_task import png

ODD = ("ai2d(cauldron,llava_format).json", "GeoQA+(MathV360K).jsonl", "a [b] {c,d} 50%.jsonl.gz", "é, ü.jsonl")


def talks(count: int, name: str = "t", *, padding: str = "") -> list[dict[str, Any]]:
    return [
        {"conversations": [{"from": "human", "value": f"{name}{n}"}, {"from": "gpt", "value": f"a{n}{padding}"}]}
        for n in range(count)
    ]


def data(path: Path, count: int, **others: Any) -> Path:
    rows = talks(count, **others)
    if path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
        return path
    return write(path, json.dumps(rows, indent=1).encode() if path.suffix == ".json" else json_lines(rows))


def mix(path: Path, *entries: Any, **others: Any) -> Path:
    rows = [
        {"json_path": str(entry[0]), **({"sampling_strategy": entry[1]} if entry[1] else {})}
        if isinstance(entry, tuple)
        else entry
        for entry in entries
    ]
    return write(path, json.dumps({"datasets": rows, **others}).encode())


def inputs(path: Path, **settings: Any) -> list[InputFile]:
    found = list_inputs(str(path), "auto", **settings)
    return [prepare_input(file, path.parent / "prepared") for file in found]


def taken(path: Path, **settings: Any) -> list[list[int]]:
    """Numbers of the records that each entry of a mix takes; all of it is read from any cut."""
    return [[int(text.split()[0][1:]) for text in summary(read_all(file))] for file in inputs(path, **settings)]


@pytest.mark.parametrize("name", [*ODD, "GeoQA+(MathV360K).parquet"])
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (None, range(11)),
        ("all", range(11)),
        ("first:4", range(4)),
        ("first:10%", range(2)),
        ("end:3", range(8, 11)),
        ("end:0.5%", [10]),
        ("end:0", []),
        ("first:0%", []),
        ("first: 50 %", range(6)),
        ("first:100%", range(11)),
        ("end:11", range(11)),
    ],
)
def test_each_strategy_takes_exactly_its_part(name: str, strategy: str | None, expected: Any, tmp_path: Path) -> None:
    data(tmp_path / name, 11)
    assert taken(mix(tmp_path / "mix.yaml", (tmp_path / name, strategy))) == [list(expected)]


def test_random_takes_as_many_as_it_says_in_the_order_of_the_file_and_others_by_another_seed(tmp_path: Path) -> None:
    path = data(tmp_path / "x.jsonl", 400)
    one = mix(tmp_path / "mix.yaml", (path, "random:5%"))
    several = mix(tmp_path / "more.yaml", (data(tmp_path / "y.jsonl", 9), "first:2"), (path, "random:5%"))
    (first,), (again,), (other,) = taken(one), taken(one), taken(one, seed=1)
    assert len(set(first)) == 20
    assert first == sorted(first) == again == taken(several)[1], "other entries change nothing"
    assert first != other
    assert len(other) == 20
    halves = {tuple(taken(mix(tmp_path / "mix.yaml", (path, "random:1")), seed=seed)[0]) for seed in range(9)}
    assert len(halves) > 5, "no record is favoured"


def test_a_file_may_be_listed_several_times(tmp_path: Path) -> None:
    path = data(tmp_path / "x.jsonl", 8)
    entries = [(path, "random:3"), (path, "random:3"), (path, None), (path, "all"), (path, "first:2")]
    made = mix(tmp_path / "mix.yaml", *entries)
    one, another, *others = taken(made)
    assert one != another
    assert others == [list(range(8)), list(range(8)), [0, 1]]
    found = [key for file in inputs(made) for key in keys(read_all(file))]
    assert len(set(found)) == len(found) == 24


def test_paths_are_taken_as_written_beside_the_mix_or_where_one_stands(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ODD:
        data(tmp_path / "sets" / name, 3)
    data(tmp_path / "here/x.jsonl", 2)
    monkeypatch.chdir(tmp_path / "here")
    made = mix(tmp_path / "sets/mix.yaml", *[(name, None) for name in ODD], ("x.jsonl", None))
    assert [len(item) for item in taken(made)] == [3, 3, 3, 3, 2]
    labels = [file.label for file in list_inputs(str(made), "llava_mix")]
    assert labels == [*(f"sets/{name}" for name in ODD), "here/x.jsonl"]


def test_braces_without_a_yaml_split_at_no_comma_in_round_brackets(tmp_path: Path) -> None:
    for name in ("ai2d(cauldron,llava_format)", "GeoQA+(MathV360K)", "a[1]"):
        data(tmp_path / f"{name}.json", 1)
    pattern = f"{tmp_path}/{{ai2d(cauldron,llava_format),GeoQA+(MathV360K),a[1]}}.json"
    assert [file.label for file in list_inputs(pattern, "auto")] == [
        "ai2d(cauldron,llava_format).json",
        "GeoQA+(MathV360K).json",
        "a[1].json",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"json_path": "x.jsonl", "sampling_strategy": "0.5%"}, "line 1, entry 2 .x.jsonl.: sampling strategy '0.5%'"),
        ({"json_path": "x.jsonl", "sampling_strategy": "last:3"}, "entry 2 .x.jsonl.: sampling strategy 'last:3'"),
        ({"json_path": "x.jsonl", "sampling_strategy": "random"}, "expected all, or first, end or random"),
        ({"json_path": "x.jsonl", "sampling_strategy": ["all"]}, "entry 2: sampling_strategy is no text"),
        ({"json_path": "gone.jsonl"}, "entry 2: gone.jsonl does not exist beside"),
        ({"json_path": "sets"}, "entry 2: .*sets is a folder"),
        ({"json_path": "s3://b/x.json"}, "entry 2: s3://b/x.json is remote"),
        ({"json_path": "mix.txt"}, "is none of .json, .jsonl, .parquet, .csv and .tsv, which mixes list"),
        ({"json_path": "x.csv"}, "data.mapping says which of them is what"),
        ({"sampling_strategy": "all"}, "entry 2 has no json_path"),
        ("x.jsonl", "entry 2 is no mapping"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_line(entry: Any, message: str, tmp_path: Path) -> None:
    data(tmp_path / "x.jsonl", 3)
    (tmp_path / "sets").mkdir()
    for name in ("mix.txt", "x.csv", "x.parquet"):
        (tmp_path / name).touch()
    made = mix(tmp_path / "mix.yaml", ("x.jsonl", None), entry)
    with pytest.raises(UserError, match=message) as caught:
        list_inputs(str(made), "llava_mix")
    assert "mix.yaml, line 1, entry 2" in str(caught.value)


def test_all_files_that_are_not_there_are_named_at_once(tmp_path: Path) -> None:
    data(tmp_path / "x.jsonl", 3)
    names = ["a.json", "GeoQA+(MathV360K).json", *(f"{number}.json" for number in range(30))]
    made = mix(tmp_path / "mix.yaml", ("x.jsonl", None), *({"json_path": name} for name in names))
    with pytest.raises(UserError) as caught:
        list_inputs(str(made), "llava_mix")
    told = str(caught.value)
    assert "entry 2: a.json does not exist beside" in told
    assert "; nor 31 others: GeoQA+(MathV360K).json, 0.json, " in told
    assert told.endswith("18.json and 11 more")


def test_entries_may_share_what_an_anchor_has(tmp_path: Path) -> None:
    """A strategy that is not seen would take all records of a file."""
    data(tmp_path / "x.jsonl", 5)
    lines = (
        "usual: &usual {sampling_strategy: end:1, json_path: x.jsonl}",
        *("datasets:", "- <<: *usual", "- {<<: [*usual], sampling_strategy: first:2}", "- {json_path: x.jsonl}"),
    )
    assert taken(write(tmp_path / "mix.yaml", "\n".join(lines).encode())) == [[4], [0, 1], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: [{json_path: x.jsonl, json_path: y.jsonl}]", "entry 1: json_path stands twice, in line 1 again"),
        ("datasets: [{json_path: x.jsonl}]\ndatasets: []", r"mix\.yaml: datasets stands twice, in line 2 again"),
        ("datasets: [{<<: 3, json_path: x.jsonl}]", "entry 1: << merges what is no mapping"),
        ("datasets: [&a {<<: *a, path: x.jsonl}]", "line 1: an alias stands in what it is an alias of"),
        (
            f"{BOMB}datasets:\n- {{<<: *a9, json_path: x.jsonl}}",
            r"line 6: .* more than 1048576 values",
        ),
        (
            "".join(f"a{n}: &a{n} {{<<: *a{n - 1}, k{n}: 1}}\n" if n else "a0: &a0 {}\n" for n in range(2000)),
            "more than 100 levels",
        ),
    ],
)
def test_what_yaml_would_drop_in_silence_is_refused(text: str, message: str, tmp_path: Path) -> None:
    data(tmp_path / "x.jsonl", 5)
    with pytest.raises(UserError, match=message):
        list_inputs(str(write(tmp_path / "mix.yaml", text.encode())), "auto")


def test_a_fault_of_reading_makes_no_mix_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path / "x.jsonl", 5)
    made = mix(tmp_path / "mix.yaml", ("x.jsonl", None))
    assert is_mix(str(made))

    def fail(path: str) -> bytes:
        with refusing_faults(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(entries, "_bytes", fail)
    with pytest.raises(CannotRead, match=r"mix\.yaml: Input/output error"):
        is_mix(str(made))


@pytest.mark.parametrize("text", ["", "a: 1", "datasets: 3", "datasets: []", "- x", "a: [", "\xff"])
def test_what_is_no_mix_is_refused(text: str, tmp_path: Path) -> None:
    made = write(tmp_path / "mix.yaml", text.encode("latin-1"))
    for source in ("llava_mix", "auto"):
        with pytest.raises(UserError, match=r"mix\.yaml (is no|has no list|lists no)"):
            list_inputs(str(made), source)
    with pytest.raises(UserError, match=r"data\.source=llava_mix reads a YAML"):
        list_inputs(str(tmp_path), "llava_mix")


@pytest.mark.parametrize("strategy", ["random:17", "random:0.5%", "end:150", "first:60%"])
def test_rows_of_parquet_are_taken_by_the_rule_of_all_files(strategy: str, tmp_path: Path) -> None:
    path = data(tmp_path / "x.parquet", 200)
    (file,) = inputs(mix(tmp_path / "mix.yaml", (path, strategy)), seed=3)
    part = subset(strategy, 200, seed=file.take_seed)
    rows = np.flatnonzero(part.holds(np.arange(200))).tolist()
    (found,) = taken(tmp_path / "mix.yaml", seed=3)
    assert (found, len(found)) == (rows, part.num_samples)
    options, places = Options(), list[int]()
    whole = scan(file, every=7, options=options, each=places.append)
    assert (places, whole.num_records) == (rows, 200)
    records = list(read(file, whole, first=0, count=len(rows), options=options))
    assert [(record.position, record.offset) for record in records] == list(enumerate(rows))
    for first in range(len(rows)):
        assert list(read(file, whole, first=first, count=1, options=options)) == [records[first]]
        alone = whole.at(first, rows[first])
        assert list(read(file, alone, first=first, count=1, options=options)) == [records[first]]
    pq.write_table(pq.read_table(path).slice(0, rows[-1]), path)
    with pytest.raises(UserError, match=r"the file changed since it was planned"):
        list(read(file, whole, first=0, count=len(rows), options=options))


def test_a_damaged_row_group_loses_what_is_taken_of_it(tmp_path: Path) -> None:
    path = data(tmp_path / "x.parquet", 12)
    (file,) = inputs(mix(tmp_path / "mix.yaml", (path, "random:7")))
    before = read_all(file)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    stored = bytearray(path.read_bytes())
    stored[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(stored)
    after = read_all(file)
    lost = [record.position for record in after if isinstance(record, Reject)]
    assert lost == [record.position for record in before if 3 <= record.offset < 6]
    assert [record for record in after if record.position not in lost] == [
        record for record in before if record.position not in lost
    ]
    path.write_bytes(stored[:-8] + b"damaged!")
    with pytest.raises(UserError, match=r"x\.parquet: .* cannot be opened, so random:7 of it cannot be counted"):
        scan(file, every=2, options=Options())


def test_tables_are_listed_by_a_mapping(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", b"q,a\n" + b"".join(f"t{n},a{n}\n".encode() for n in range(5)))
    rows = [{"q": f"t{n}", "a": f"a{n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "y.parquet")
    write(tmp_path / "z.jsonl", json_lines(rows))
    mapping = json.dumps({"turns": [{"user": "{q}"}, {"assistant": "{a}"}]})
    made = mix(tmp_path / "mix.yaml", ("x.csv", "end:2"), ("y.parquet", "end:2"), ("z.jsonl", "first:1"))
    found = inputs(made, mapping=mapping)
    options = Options(mapping=mapping)
    assert [[text.split()[0] for text in summary(read_all(file, options))] for file in found] == [
        ["t3", "t4"],
        ["t1", "t2"],
        ["t0"],
    ]
    pq.write_table(pa.Table.from_pylist(talks(2)), tmp_path / "y.parquet")
    assert taken(mix(tmp_path / "mix.yaml", ("y.parquet", "all"))) == [[0, 1]]


def test_more_than_there_are_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (file,) = inputs(mix(tmp_path / "mix.yaml", (data(tmp_path / "x.json", 3), "first:4")))
    with pytest.raises(UserError, match=r"^x\.json: sampling strategy 'first:4' is 4 of 3 samples"):
        scan(file, every=2, options=Options())


def test_keys_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data(tmp_path / "x.jsonl", 3)
    inputs(mix(tmp_path / "mix.yaml", {"json_path": "x.jsonl", "sampling_stratgy": "first:1"}))
    assert "sampling_stratgy of its entries is not read" in caplog.text


TEXTS = ("image.tokenizer=none", "data.n_train_samples=null")


def test_what_is_left_out_is_counted_and_seen(tmp_path: Path) -> None:
    made = mix(
        tmp_path / "in/mix.yaml",
        (data(tmp_path / "in/x.jsonl", 30), "random:20%"),
        (data(tmp_path / "in/y.json", 9), "end:4"),
        (data(tmp_path / "in/z.parquet", 20), "random:3"),
    )
    run = tmp_path / "run"
    plan = small_run(run, *TEXTS, source=made)
    assert (plan.num_samples, plan.num_left_out) == (13, 46)
    manifest = combine(run, CombineOptions())
    assert manifest.counts.written == 13
    assert [item["left_out_by_sampling"] for item in manifest.extra["inputs"]] == [24, 5, 17]
    assert "left out 46 records by sampling" in describe(Observer(run).look(), run)


def test_another_strategy_or_seed_is_another_run(tmp_path: Path) -> None:
    path, run = data(tmp_path / "in/x.jsonl", 30), tmp_path / "run"
    made = mix(tmp_path / "in/mix.yaml", (path, "random:20"))
    planned = prepare(small_config(run, *TEXTS, source=made))
    begin(run)
    assert prepare(small_config(run, *TEXTS, source=made)).fingerprint == planned.fingerprint
    with pytest.raises(UserError, match=r"data\.seed was 0, now 1"):
        prepare(small_config(run, *TEXTS, "data.seed=1", source=made))
    mix(made, (path, "random:21"))
    with pytest.raises(UserError, match=r"input x.jsonl@random:20 is gone; input x.jsonl@random:21 is new"):
        prepare(small_config(run, *TEXTS, source=made))


def test_a_loader_reads_the_same_records_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data(tmp_path / "in/x.jsonl", 60, padding=" long" * 20000)
    table, packed = data(tmp_path / "in/z.parquet", 30), data(tmp_path / "in/y.json.gz", 9)
    made = mix(tmp_path / "in/mix.yaml", (table, "random:30%"), (path, "random:10%"), (packed, "end:3"))
    run = tmp_path / "run"
    small_run(
        run, "stage=measure", "image.tokenizer=null", "data.n_train_samples=13", "text.tokenizer=embedded", source=made
    )
    combine(run, CombineOptions())
    found, raw = MeasuredDataset(run), SourceDataset(made, index_dir=tmp_path / "index")
    assert (len(found), len(raw)) == (13, 18)
    streamed = [record for file in inputs(made) for record in read_all(file)]
    for item in reversed(range(18)):
        assert dataclasses.replace(raw.record(item), position=0) == dataclasses.replace(streamed[item], position=0)
    assert [found.record(item) for item in range(13)] == [raw.record(item) for item in range(13)]
    monkeypatch.setattr(at_random, "_MOST_ROWS_BYTES", 0)
    assert SourceDataset(made).record(5) == raw.record(5)
    assert SourceDataset(made, seed=1).fingerprint() != raw.fingerprint()
    mix(made, (path, "first:1"))
    with pytest.raises(UserError, match=r"index of something else .mixes differs"):
        SourceDataset(made, index_dir=tmp_path / "index")


def test_a_recipe_trains_on_a_mix(tmp_path: Path) -> None:
    made = mix(tmp_path / "mix.yaml", (data(tmp_path / "x.jsonl", 30), "first:4"))
    loader = make_loader(
        {
            "datasets": [str(made)],
            "preprocessor": {"tokenizer": "embedded"},
            "loader": {"global_batch_size": 2, "seed": 3},
        }
    )
    assert len(next(iter(loader))["input_ids"]) == 2


def test_a_stopped_run_of_a_mix_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    from hpcdata.work.task import TaskOutcome, run_task
    from tests.trees import sha256_tree

    files = data(tmp_path / "in/x.jsonl", 40), data(tmp_path / "in/y.parquet", 30)
    made = mix(tmp_path / "in/mix.yaml", *[(file, "random:50%") for file in files])
    small_run(tmp_path / "whole", *TEXTS, source=made)
    prepare(small_config(tmp_path / "run", *TEXTS, source=made))
    stops = 0
    while run_task(tmp_path / "run", StopAfter(2)) is TaskOutcome.STOPPED:  # type: ignore[arg-type]
        stops += 1
    assert stops > 2
    assert sha256_tree(tmp_path / "run/shards") == sha256_tree(tmp_path / "whole/shards")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "hf"])
def test_records_that_a_mix_takes_are_copied_with_their_pictures(form: str, tmp_path: Path) -> None:
    made = mix_of_pictures(tmp_path)
    settings = (
        "data.source=llava_mix",
        f"copy.format={form}",
        f"copy.columns={'records' if form == 'hf' else 'pairs'}",
    )
    run = copied(tmp_path / "run", *TARS, *settings, source=made)
    export_records(run, tmp_path / "out", form)
    assert parts_of(tmp_path / "out") == parts_of(made)
    assert sum(parts_of(made).values()) == 5


def test_records_that_a_mix_takes_are_measured_with_their_pictures(tmp_path: Path) -> None:
    run, made = tmp_path / "run", mix_of_pictures(tmp_path)
    settings = ("stage=measure", "data.source=llava_mix", "image.tokenizer=null", "data.n_train_samples=null")
    small_run(run, *settings, source=made)
    combine(run, CombineOptions())
    found, raw = MeasuredDataset(run), SourceDataset(made)
    assert [found.record(item) for item in range(5)] == [raw.record(item) for item in range(5)]
    assert read_manifest(run).counts.images == 5


def mix_of_pictures(folder: Path) -> Path:
    """Two files beside their pictures, one of them listed twice; 5 records."""
    for name, (below, file) in zip("ab", (("a", ODD[0]), ("b", ODD[1])), strict=True):
        rows = talks(4, f"<image>{name}")
        for number, row in enumerate(rows):
            row["image"] = f"{number}.png"
            write(folder / below / f"{number}.png", png() + f"{name}{number}".encode())
        write(folder / below / file, json.dumps(rows).encode() if file.endswith("json") else json_lines(rows))
    return mix(folder / "mix.yaml", (f"a/{ODD[0]}", "first:2"), (f"b/{ODD[1]}", "end:50%"), (f"a/{ODD[0]}", "end:1"))

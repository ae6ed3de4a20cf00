"""Copied records laid out for other systems, opened by their own readers, and read again by ours.

HPCDATA_TEST_READERS=DIR pytest tests/formats/records/test_laying_out.py: DIR has megatron-energon (tests/run.sh).
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata import embedded
from hpcdata import export as export_command
from hpcdata import verify as verify_command
from hpcdata.base.errors import Failed, UserError
from hpcdata.dataset.verifying import verify
from hpcdata.formats.records import laying_out
from hpcdata.formats.records.laying_out import export_records
from hpcdata.formats.records.options import RecordOptions
from hpcdata.formats.target import problems_of, read_target
from hpcdata.sources import list_inputs
from tests.crashes import Crash, crash_at
from tests.evidence import CRASHES, Evidence
from tests.formats.records.made import LINES, TARS, copied, parts_of, read_with, write_lines
from tests.smallruns import small_run
from tests.trees import tree
from tests.work.test_task import make_tar, png

ENERGON = """
import json, sys
from megatron.energon import Cooker, DefaultTaskEncoder, TextSample, WorkerConfig, basic_sample_keys
from megatron.energon import get_loader, get_train_dataset, get_val_dataset, stateless
from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator
@stateless
def cook(sample):
    names = sorted(name for name in sample if not name.startswith("__"))
    return TextSample(**basic_sample_keys(sample), text=json.dumps([names, sample["json"]]))
class Cooked(DefaultTaskEncoder):
    cookers = [Cooker(cook)]
def shown(sample):
    if isinstance(sample, TextSample):
        return [sample.__key__, *json.loads(sample.text)]
    fields = [getattr(sample, name, "") for name in ("caption", "context", "answers")]
    return [sample.__key__, type(sample).__name__, *fields, list(sample.image.shape)]
worker, found = WorkerConfig(rank=0, world_size=1, num_workers=0), []
asked, prepared, names = json.loads(sys.argv[1])
for folder, splits in asked:
    common = {"batch_size": None, "worker_config": worker, "task_encoder": Cooked()}
    train = get_train_dataset(folder, shuffle_buffer_size=None, max_samples_per_sequence=None, repeat=False, **common)
    held = {"train": train, **({"val": get_val_dataset(folder, **common)} if "val" in splits else {})}
    found.append({name: [shown(sample) for sample in get_loader(split)] for name, split in held.items()})
WebdatasetPreparator.prepare_dataset(EPath(prepared), names, split_parts_ratio=[("train", 1.0)], tar_index_only=False,
                                     workers=1)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures with captions in 4 tars."""
    return copied(tmp_path_factory.mktemp("tars") / "run", *TARS, "data.n_train_samples=24")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars of pictures with captions whose names are the same."""
    folder = tmp_path_factory.mktemp("twins")
    for name in ("a", "b"):
        pieces = [item for n in range(3) for item in ((f"{n}.png", png()), (f"{n}.txt", f"{name}{n}".encode()))]
        make_tar(folder / f"in/{name}.tar", pieces)
    return copied(folder / "run", *TARS, "data.shard_size=3", source=folder / "in")


TALK = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat, ein Tier, 猫."}]
CONTENT = [{"type": "image", "image": "two.png"}, {"type": "text", "text": "And this?"}]
ROWS = [
    {"id": "coco/train/1", "image": "one.png", "conversations": TALK, "data_source": "x"},
    {
        "id": "coco/train/1",
        "image": ["one.png", "two.png"],
        "conversations": [{**TALK[0], "value": "<image> <image>?"}, TALK[1]],
    },
    {"image": None, "conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]},
    {"messages": [{"role": "user", "content": CONTENT}, {"role": "assistant", "content": "A dog."}]},
    {"id": "../../etc/passwd", "image": "two.png", "conversations": [{"from": "human", "value": "x"}, TALK[1]]},
]


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations with one picture, two, none, and of chats, as JSON lines in 2 shards."""
    folder = tmp_path_factory.mktemp("talks")
    for name in ("one", "two"):
        (folder / f"{name}.png").write_bytes(png())
    write_lines(folder / "in.jsonl", ROWS)
    return copied(folder / "run", *LINES, "data.shard_size=3", source=folder / "in.jsonl")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]


def tokens(folder: Path, source: str | Path, *overrides: str) -> str:
    """The content digest of what our own sources and encoders make of a folder."""
    small_run(folder, *overrides, source=source)
    (report,) = verify(folder)
    assert report.problems == []
    return report.content_digest


def test_tars_are_the_same_files_and_webdataset_reads_them(tars: Path, tmp_path: Path) -> None:
    import webdataset

    made = export_records(tars, tmp_path / "out", "webdataset")
    found = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in found] == [f"{number:05d}-of-00004.tar" for number in range(4)]
    assert all(path.samefile(next(tars.glob(f"dataset/parts/*/records/{path.name}"))) for path in found)
    samples = list(webdataset.WebDataset([str(path) for path in found], shardshuffle=False))
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        original = {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    assert len(samples) == 24
    assert all(sample["png"] == original[f"{sample['__key__']}.png"] for sample in samples)
    assert (made.source.num_samples, made.facts) == (24, {"renamed": 0})
    assert problems_of(tmp_path / "out") == []
    index = json.loads((tmp_path / "out/shardindex.json").read_text())
    assert [item["nsamples"] for item in index["shardlist"]] == [7, 7, 7, 3]


def test_names_come_once_in_all_tars_unless_they_are_to_be_kept(twins: Path, tmp_path: Path) -> None:
    made = export_records(twins, tmp_path / "out", "webdataset")
    names = [name for path in sorted((tmp_path / "out").glob("*.tar")) for name in members(path)]
    assert len(set(names)) == len(names) == 12
    assert made.facts == {"renamed": 3}
    export_records(twins, tmp_path / "kept", "webdataset", RecordOptions(keys="keep"))
    names = [name for path in sorted((tmp_path / "kept").glob("*.tar")) for name in members(path)]
    assert len(set(names)) == 6
    assert parts_of(tmp_path / "out") == parts_of(twins.parent / "in")


@pytest.mark.slow
def test_energon_reads_what_there_is_and_prepares_the_same_index_itself(
    twins: Path, tars: Path, tmp_path: Path
) -> None:
    """Pairs with names that come again, splits, conversations as they are, and questions by a type that is given."""
    talk = json.dumps({"conversations": TALK, "question": "What?", "answer": "A cat."}).encode()
    pieces = [piece for number in "01" for piece in ((f"{number}.png", png()), (f"{number}.json", talk))]
    talks = copied(tmp_path / "run", *TARS, source=make_tar(tmp_path / "in.tar", pieces))
    export_records(twins, tmp_path / "twins", "energon")
    made = export_records(tars, tmp_path / "split", "energon", RecordOptions(split="train:3,val:1"))
    export_records(talks, tmp_path / "talks", "energon", RecordOptions(sample_index=False))
    fields = "image=png,context=json[question],answers=json[answer]"
    export_records(talks, tmp_path / "vqa", "energon", RecordOptions(sample_type="VQASample", field_map=fields))
    assert not (tmp_path / "talks/.nv-meta/index.sqlite").exists()
    names = sorted(path.name for path in (tmp_path / "twins").glob("*.tar"))
    (tmp_path / "theirs").mkdir()
    for name in names:
        shutil.copy(tmp_path / "twins" / name, tmp_path / "theirs")
    asked = [(str(tmp_path / name), ["val"] if name == "split" else []) for name in ("twins", "split", "talks", "vqa")]
    found = read_with("HPCDATA_TEST_READERS", ENERGON, json.dumps([asked, str(tmp_path / "theirs"), names]))
    pairs, splits, conversations, questions = found
    assert sorted(item[2] for item in pairs["train"]) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert {item[1] for item in pairs["train"]} == {"CaptioningSample"}
    assert len({item[0] for item in pairs["train"]}) == 6
    assert {name: len(items) for name, items in splits.items()} == made.facts["split"]
    assert len({item[0] for items in splits.values() for item in items}) == 24
    assert sorted(conversations["train"]) == [[name, ["json", "png"], json.loads(talk)] for name in "01"]
    assert [item[1:5] for item in questions["train"]] == [["VQASample", "", "What?", "A cat."]] * 2
    assert_same_index(tmp_path / "twins", tmp_path / "theirs", names)


def assert_same_index(ours: Path, theirs: Path, names: list[str]) -> None:
    """Row by row, and where samples begin."""
    for name in names:
        assert (ours / f"{name}.idx").read_bytes() == (theirs / f"{name}.idx").read_bytes()
    rows, schemas, counts = [], [], []
    for folder in (ours, theirs):
        with sqlite3.connect(folder / ".nv-meta/index.sqlite") as database:
            rows.append([sorted(database.execute(f"SELECT * FROM {table}")) for table in ("samples", "sample_parts")])
            schemas.append(sorted(database.execute("SELECT type, name, tbl_name FROM sqlite_master")))
        counts.append(json.loads((folder / ".nv-meta/.info.json").read_text())["shard_counts"])
    assert rows[0] == rows[1]
    assert schemas[0] == schemas[1]
    assert counts[0] == counts[1]


def as_the_trainer(path: Path, folder: Path) -> Iterator[tuple[list[Path], list[dict]]]:
    """The pictures and turns of each record, as LLaVA's lazy dataset finds them: it joins `image` to a folder."""
    text = path.read_text()
    for record in map(json.loads, text.splitlines()) if path.suffix == ".jsonl" else json.loads(text):
        images = record.get("image", [])  # null fails below, as there
        pictures = [folder / name for name in (images if isinstance(images, list) else [images])]
        turns = record["conversations"]
        yield pictures, turns[1:] if turns[0]["from"] != "human" else turns


@pytest.mark.parametrize("lines", [False, True])
def test_conversations_are_read_as_the_trainer_reads_them_and_by_our_sources(
    talks: Path, tmp_path: Path, lines: bool
) -> None:
    made = export_records(talks, tmp_path / "out", "llava", RecordOptions(lines=lines))
    path = tmp_path / "out" / ("llava.jsonl" if lines else "llava.json")
    found = list(as_the_trainer(path, tmp_path / "out"))
    assert [len(pictures) for pictures, _ in found] == [1, 2, 0, 1, 1]
    assert all(path.read_bytes() == png() for pictures, _ in found for path in pictures)
    assert [turns[0]["value"] for _, turns in found] == [
        "<image>\nWhat?",
        "<image> <image>?",
        "Hi.",
        "<image>And this?",
        "x",
    ]
    assert made.facts == {"records": 5, "left_out": {}}
    assert problems_of(tmp_path / "out") == []
    assert parts_of(path) == parts_of(talks.parent / "in.jsonl")


def test_what_a_conversation_cannot_hold_is_listed(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(png())
    rows = [{"text": "a document"}, {"image": "one.png", "text": "A cat."}, {"image": "one.png"}]
    run = copied(tmp_path / "run", *LINES, source=write_lines(tmp_path / "in.jsonl", rows))
    made = export_records(run, tmp_path / "out", "llava", RecordOptions(prompt="Describe it."))
    (record,) = json.loads((tmp_path / "out/llava.json").read_text())
    assert record["conversations"][0]["value"] == "<image>\nDescribe it."
    assert made.facts == {"records": 1, "left_out": {"bad_record": 1, "missing_text": 1}}
    assert made.describe().endswith(", without 1 bad_record, 1 missing_text")
    noted = [json.loads(line) for line in (tmp_path / "out/hpcdata.left_out.jsonl").read_text().splitlines()]
    assert [(item["key"], item["reason"]) for item in noted] == [
        ("in.jsonl#0", "bad_record"),
        ("in.jsonl#2", "missing_text"),
    ]
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["000000001.png"]


def test_fields_that_only_look_like_ours_stay_and_pictures_on_the_web_are_listed(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "x"}, TALK[1]]
    rows = [
        {"id": "a", "files": ["x"], "conversations": turns},
        {"id": "b", "files": {"n": 1}, "image": "", "conversations": turns},
        {"id": "c", "image": "https://example.org/a.png", "conversations": turns},
    ]
    run = copied(tmp_path / "run", *LINES, source=write_lines(tmp_path / "in.jsonl", rows))
    made = export_records(run, tmp_path / "out", "llava")
    found = json.loads((tmp_path / "out/llava.json").read_text())
    assert [record["files"] for record in found] == [["x"], {"n": 1}]
    assert not any("image" in record for record in found)
    assert made.facts["left_out"] == {"unsupported_media": 1}


def test_lines_and_files_are_the_same_files_and_a_folder_of_them_is_read(talks: Path, tmp_path: Path) -> None:
    export_records(talks, tmp_path / "out", "jsonl")
    lines = sorted((tmp_path / "out").glob("*/*.jsonl"))
    assert [path.samefile(next(talks.glob(f"dataset/parts/*/records/{path.name}"))) for path in lines] == [True] * 2
    records = [(path.parent, json.loads(line)) for path in lines for line in path.read_text().splitlines()]
    named = [folder / name for folder, record in records for name in _names(record.get("image"))]
    assert [path.read_bytes() for path in named] == [png()] * 5
    assert parts_of(tmp_path / "out") == parts_of(talks.parent / "in.jsonl")


def test_lines_of_liquid_name_their_pictures_and_what_is_no_pair_is_left_out(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_bytes(png())
    rows = [
        {"image": "one.png", "caption": "Größe"},
        {"image": ["one.png", "two.png"], "conversations": [{"from": "human", "value": "a"}]},
        {"text": "a text"},
        {"image": ["one.png", "two.png"], "text": "two"},
        {"image": "two.png"},
        {"image": "two.png", "text_prompt": "2"},
    ]
    settings = (*LINES, "data.shard_size=3", "copy.needs=any")
    run = copied(tmp_path / "run", *settings, source=write_lines(tmp_path / "in.jsonl", rows))
    out = tmp_path / "out"
    assert typed(run, out, "jsonl", "--style=liquid") == 0
    lines = [json.loads(line) for line in (out / "liquid.jsonl").read_text().splitlines()]
    assert [(line["data_type"], line["text"]) for line in lines] == [
        *(("image_text", "Größe"), ("text_pretrain", "a text"), ("image_text", "2"))
    ]
    assert [line["image_path"] and (out / line["image_path"]).read_bytes() for line in lines] == [png(), "", png()]
    left_out = [json.loads(line)["reason"] for line in (out / "hpcdata.left_out.jsonl").read_text().splitlines()]
    assert left_out == ["bad_record", "too_many_images", "missing_text"]
    assert problems_of(out) == []
    assert sorted(path.name for path in out.glob("images/*/*")) == ["000000000.png", "000000005.png"]
    with pytest.raises(UserError, match="--style spans is of datasets of tokens"):
        export_records(run, tmp_path / "other", "jsonl", RecordOptions(style="spans"))
    export_records(run, tmp_path / "plain", "jsonl")
    assert json.loads((tmp_path / "plain/hpcdata.json").read_text())["options"] == {}


def test_what_an_export_says_of_itself_is_no_input(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcdata.formats.arranging.MOST_NAMED", 1)
    export_records(talks, tmp_path / "out", "jsonl")
    assert (tmp_path / "out/hpcdata.files.jsonl").exists()
    export_records(talks, tmp_path / "llava", "llava", RecordOptions(lines=True))
    assert (tmp_path / "llava/hpcdata.left_out.jsonl").exists()
    for source in ("auto", "jsonl"):
        found = [
            file.label.rpartition("/")[2]
            for name in ("out", "llava")
            for file in list_inputs(str(tmp_path / name), source)
        ]
        assert found == ["00000-of-00002.jsonl", "00001-of-00002.jsonl", "llava.jsonl"]


def _names(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def test_where_there_are_no_links_files_are_copied(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_records(talks, tmp_path / "linked", "llava")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    export_records(talks, tmp_path / "copied", "llava")
    assert tree(tmp_path / "copied") == tree(tmp_path / "linked")


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    run = copied(tmp_path / "run", *TARS, source=make_tar(tmp_path / "in.tar", [("a.txt", b"a"), ("b.txt", b"b")]))
    (path,) = (run / "dataset").glob("parts/*/samples/first_byte.memmap")
    path.chmod(0o644)
    path.write_bytes(b"1")
    with pytest.raises(Failed, match=r"first_byte\.memmap: 1 bytes, expected 16 for 2 rows; run hpcdata verify"):
        export_records(run, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()


def test_the_form_of_the_copy_says_which_formats_fit(tars: Path, talks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds tars, and llava is made of JSON lines: .*copy\.format=jsonl"):
        export_records(tars, tmp_path / "out", "llava")
    with pytest.raises(UserError, match=r"holds JSON lines, and energon is made of tars: .*copy\.format=webdataset"):
        export_records(talks, tmp_path / "out", "energon")
    with pytest.raises(UserError, match="holds tokens"):
        export_records(copied(tmp_path / "run"), tmp_path / "out", "jsonl")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["energon", "llava"])
def test_an_export_that_was_killed_anywhere_has_the_same_bytes_when_it_is_typed_again(
    twins: Path, talks: Path, tmp_path: Path, name: str, evidence: Evidence
) -> None:
    run, number = (talks if name == "llava" else twins), 0
    export_records(run, tmp_path / "whole", name)
    whole = tree(tmp_path / "whole")
    while True:
        number += 3
        out = tmp_path / f"{number}/out"
        try:
            with crash_at(number, after=bool(number % 2)) as counter:
                export_records(run, out, name)
            if counter.calls < number:
                break
        except Crash:
            pass
        assert not out.exists() or tree(out) == whole
        shutil.rmtree(out.with_name(".out.claims"), ignore_errors=True)  # as if the dead process were another one
        export_records(run, out, name)
        assert tree(out) == whole
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        shutil.rmtree(out)
    assert number > 10
    evidence(CRASHES, number // 3)


def test_the_command_says_what_it_made_and_refuses_options_of_other_formats(
    twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(twins), str(tmp_path / "ai2d(cauldron,llava_format)"), "--format", "energon"]
    assert export_command.main([*line, "--split=train:1,val:1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["samples"], found["facts"]["renamed"]) == (6, 3)
    assert found["facts"]["split"] == {"train": 3, "val": 3}
    assert verify_command.main([line[1]]) == 0
    assert export_command.main([*line, "--split=train:1,val:1"]) == 0
    assert "6 samples (energon) in " in capsys.readouterr().out
    assert export_command.main(line) == 2
    assert "split was train:1,val:1, now train:1" in capsys.readouterr().err
    for key in ("export.format=hf", "data.raw_data_dir=x"):
        assert export_command.main([*line, key]) == 2
        assert f"{key}: the line says that by its own words" in capsys.readouterr().err
    assert export_command.main([line[0], f"{twins}/dataset/new", *line[2:]]) == 2
    assert "which holds a dataset and nothing else" in capsys.readouterr().err
    for option in ("--prompt=x", "--keys=keep", "--block-size=4", "--lines"):
        assert export_command.main([*line[:1], str(tmp_path / "new"), *line[2:], option]) == 2
        assert "is no option of --format energon" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def typed(dataset: Path, out: Path, name: str, *more: str) -> int:
    return export_command.main([str(dataset), str(out), "--format", name, *more])


@pytest.mark.slow
def test_records_in_another_form_are_copied_once_more_first(tars: Path, talks: Path, tmp_path: Path) -> None:
    out = tmp_path / "ai2d(cauldron,llava_format)"
    assert typed(tars, out, "llava", "--prompt=Describe it.", "data.shard_size=10") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        pieces = {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    found = json.loads((out / "llava.json").read_text())
    assert len(found) == 24
    captions = [record["conversations"][1]["value"].encode() for record in found]
    assert all(caption in pieces.values() for caption in captions)
    assert all((out / record["image"]).read_bytes() in pieces.values() for record in found)
    assert problems_of(out) == []
    target = read_target(out)
    assert (target.source.num_samples, target.facts["copied_again"]["written"]) == (24, 24)
    assert typed(talks, tmp_path / "energon", "energon") == 0
    assert read_target(tmp_path / "energon").facts["sample_type"]["name"] == "CrudeWebdataset"


PAIRS = ["key", "image", "text", "metadata"]
RECORDS = ["key", "images", "text", "conversations", "metadata", "files"]


def test_a_copy_in_another_form_has_shards_of_the_size_of_those_before_so_that_they_can_be_split(
    talks: Path, tmp_path: Path
) -> None:
    """All were one shard of 4,096, and the message asked for smaller ones of records that had them."""
    assert typed(talks, tmp_path / "out", "energon", "--split=train:1,val:1") == 0
    assert len(read_target(tmp_path / "out").facts["split"]) == 2


@pytest.mark.parametrize(("name", "columns"), [("tars", PAIRS), ("talks", RECORDS)])
def test_columns_of_rows_are_those_that_hold_all_records(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, columns: list[str]
) -> None:
    dataset = request.getfixturevalue(name)
    assert typed(dataset, tmp_path / "out", "hf") == 0
    assert list(json.loads((tmp_path / "out/dataset_info.json").read_text())["features"]) == columns
    assert read_target(tmp_path / "out").facts["copied_again"]["rejected"] == {}
    assert not (tmp_path / "out.run").exists()


def test_what_does_not_fit_the_rows_that_are_asked_for_is_told_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "one"}, {"conversations": [{"from": "human", "value": "x"}]}, {"text": "two"}]
    run = copied(tmp_path / "run", *LINES, source=write_lines(tmp_path / "in.jsonl", rows))
    assert typed(run, tmp_path / "out", "hf", "--rows=pairs") == 0
    told = capsys.readouterr().out
    assert told.startswith("2 samples (hf) in ")
    assert "1 records could not be copied once more (bad_record 1): python -m hpcdata.rejects" in told
    assert (tmp_path / "out.run/plan.json").exists()


def test_an_export_that_was_stopped_after_the_copy_goes_on_with_it(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed(talks, tmp_path / "whole", "hf") == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(laying_out._FILLS, "hf", stop)
        assert typed(talks, tmp_path / "out", "hf") == 130
        assert (tmp_path / "out.run/plan.json").exists()
        assert not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / ".out.claims", ignore_errors=True)
    assert typed(talks, tmp_path / "out", "hf") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert not (tmp_path / "out.run").exists()


def test_what_was_rejected_by_the_copy_is_in_the_account_of_the_export(tmp_path: Path) -> None:
    make_tar(tmp_path / "in.tar", [("a.png", png()), ("b.png", png()[:60])])
    run = copied(tmp_path / "run", *TARS, source=tmp_path / "in.tar")
    export_records(run, tmp_path / "out", "webdataset")
    found = read_target(tmp_path / "out")
    assert (found.counts.inputs, found.counts.written) == (2, 1)
    assert sum(Counter(found.counts.rejected).values()) == 1

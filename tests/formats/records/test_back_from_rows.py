"""Exports for Hugging Face's datasets, read in again.   pytest tests/formats/records/test_back_from_rows.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import Manifest, read_manifest
from hpcdata.formats.records.laying_out import export_records
from hpcdata.formats.records.options import RecordOptions
from hpcdata.multimodal import MeasuredDataset, SourceDataset
from hpcdata.sources import Options, list_inputs, read, scan
from tests.formats.records.made import TARS, copied, parts_of, write_lines
from tests.formats.tokens.exports import export
from tests.smallruns import small_run
from tests.work.test_task import make_tar, png

ALL = ("data.n_train_samples=null",)
ROWS = (*TARS, "copy.format=hf", "data.shard_size=3")
ANY = (*ROWS, "copy.columns=records", "copy.needs=any")


def talk(said: str, speakers: tuple[str, str] = ("from", "value")) -> list[dict]:
    return [dict(zip(speakers, turn, strict=True)) for turn in (("user", said), ("assistant", "Ein 猫."))]


def records() -> list[dict]:
    pieces = [{"type": "image", "image": "two.png"}, {"type": "text", "text": "And this?"}]
    return [
        {"id": 7, "image": ["one.png", "two.png"], "conversations": talk("<image>a <image>b")},
        {"image": "one.png", "messages": talk("<image>Größe?", ("role", "content"))},
        {"messages": [{"role": "user", "content": pieces}, {"role": "assistant", "content": "A dog."}]},
        {"image_path": "two.png", "conversations": [talk("Was?")[0], {**talk("")[1], "markdown": 1}], "n": [1, None]},
        {"text": "a document", "files": {"a": "no/file"}, "key": "mine"},
        {"text_prompt": "first", "text": "second", "image": "one.png"},
        {"text_prompt": 5, "text": None, "caption": "third", "metadata": "{", "image": "one.png"},
        {"image": "one.png"},
    ]


def written(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.png").write_bytes(png() + name.encode())
    return write_lines(folder / "in.jsonl", rows)


def digest(run: Path) -> str:
    manifest: Manifest = read_manifest(run)
    return manifest.content_digest


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train:1", "train:2,val:1"])
def test_any_record_comes_back_from_rows_as_it_was(split: str, tmp_path: Path) -> None:
    source = written(tmp_path / "in", records())
    run = copied(tmp_path / "run", *ANY, source=source)
    export_records(run, tmp_path / "out", "hf", RecordOptions(split=split))
    (tmp_path / "out/hpcdata.left_out.jsonl").write_text('{"text": "no record"}\n')
    again = copied(tmp_path / "again", *ANY, source=tmp_path / "out")
    if split == "train:1":  # of several splits the records stand in another order, and their folder is in their keys
        assert digest(again) == digest(run)
    else:
        found = read_manifest(again)
        assert (found.num_samples, found.counts.rejected) == (len(records()), {})


@pytest.mark.slow
def test_tars_come_back_from_rows_with_all_their_members(tmp_path: Path) -> None:
    pieces = [("a.png", png()), ("a.txt", b"a text"), ("b.0.png", png()), ("b.1.png", png()), ("b.npy", b"N")]
    pieces += [("d.png", png()), ("d.json", json.dumps({"caption": "of d", "score": 1}).encode())]
    run = copied(tmp_path / "run", *ANY, source=make_tar(tmp_path / "in.tar", pieces))
    export_records(run, tmp_path / "out", "hf")
    assert digest(copied(tmp_path / "again", *ANY, source=tmp_path / "out")) == digest(run)
    pairs = copied(tmp_path / "pairs", *ROWS, source=make_tar(tmp_path / "two/in.tar", pieces[:2] + pieces[-2:]))
    export_records(pairs, tmp_path / "out-of-pairs", "hf")
    assert digest(copied(tmp_path / "again-pairs", *ROWS, source=tmp_path / "out-of-pairs")) == digest(pairs)
    assert parts_of(tmp_path / "out-of-pairs") == parts_of(tmp_path / "two")


@pytest.mark.slow
def test_parts_of_records_come_back_from_rows(tmp_path: Path) -> None:
    source = written(tmp_path / "in", records()[:4])
    run = copied(tmp_path / "run", *ROWS, "copy.columns=records", source=source)
    export_records(run, tmp_path / "out", "hf")
    assert parts_of(tmp_path / "out") == parts_of(source)
    small_run(tmp_path / "measured", "stage=measure", "image.tokenizer=null", *ALL, source=tmp_path / "out")
    combine(tmp_path / "measured", CombineOptions())
    measured, raw = MeasuredDataset(tmp_path / "measured"), SourceDataset(tmp_path / "out")
    assert [measured.record(item) for item in range(4)] == [raw.record(item) for item in range(4)]


def test_a_damaged_row_is_a_reject_and_foreign_rows_of_these_names_are_read_by_their_names(tmp_path: Path) -> None:
    source = written(tmp_path / "in", [{"text": "one", "image": "one.png"}, {"text": "two", "image": "one.png"}])
    run = copied(tmp_path / "run", *ROWS, source=source)
    export_records(run, tmp_path / "out", "hf")
    (listed,) = list_inputs(str(tmp_path / "out"), "auto")
    assert listed.format == "arrow.exported"
    path = Path(listed.path)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data.replace(b"{}{}", b"{}[]"))
    known = scan(listed, every=8, options=Options())
    first, second = read(listed, known, first=0, count=2, options=Options())
    assert first.key == "in.jsonl#0"
    assert getattr(second, "reason", None) == "bad_record"
    (tmp_path / "out/hpcdata.json").unlink()
    assert [file.format for file in list_inputs(str(tmp_path / "out"), "auto")] == ["arrow"]


@pytest.mark.slow
def test_texts_come_back_from_exported_tokens_and_ids_alone_are_refused(tmp_path: Path) -> None:
    texts = [{"text": text} for text in ("Größe", "a b c\n\n", "名前 \U0001f600", " x")]
    settings = ("image.tokenizer=null", "text.keep_raw=true", "data.n_train_samples=null")
    run = tmp_path / "run"
    small_run(run, *settings, source=write_lines(tmp_path / "in.jsonl", texts))
    combine(run, CombineOptions())
    export(run, tmp_path / "out", "hf", "export.columns=[input_ids,text]")
    small_run(tmp_path / "again", *settings, source=tmp_path / "out")
    combine(tmp_path / "again", CombineOptions())
    assert read_manifest(tmp_path / "again").num_samples == 4
    assert digest(tmp_path / "again") == digest(run)
    export(run, tmp_path / "ids", "hf")
    with pytest.raises(UserError, match="holds ids of tokens and no text"):
        list_inputs(str(tmp_path / "ids"), "auto")

"""A run that asks for pictures makes no dataset of texts alone.   pytest tests/runs/inputs/test_pictures.py"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hpcdata import rejects
from hpcdata.base.errors import UserError
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from tests.evidence import account
from tests.smallruns import small_config, small_run
from tests.sources.source_files import json_lines, pairs, write, write_tar

TURNS = [{"from": "human", "value": "<video>\nWhat happens?"}, {"from": "gpt", "value": "A cat jumps."}]
TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A square."}]
CHAT = [{"role": "user", "content": "<image>hi"}, {"role": "assistant", "content": "there"}]


def png(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), (9, 200, number)).save(buffer, "PNG")
    return buffer.getvalue()


def made(folder: Path, source: Path, *overrides: str) -> tuple[int, int, dict[str, str]]:
    """(samples, pictures, key -> reason) of a whole run."""
    out = folder / "out"
    small_run(out, "data.n_train_samples=null", *overrides, source=source)
    shards = [json.loads(path.read_bytes())["counts"] for path in out.glob("shards/[0-9]*/shard.json")]
    written, images = (sum(counts[name] for counts in shards) for name in ("written", "images"))
    return written, images, {row.key: row.reason for row in rows_of(out)}


def refusal(folder: Path, source: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        prepare(small_config(folder / "out", "data.n_train_samples=null", *overrides, source=source))
    assert not (folder / "out/plan.json").exists()
    return str(caught.value)


def test_an_imagefolder_of_hugging_face_is_read(tmp_path: Path) -> None:
    """shared/cases/hf-imagefolder: it became three texts."""
    rows = [{"file_name": f"{number}.png", "text": f"cap {number}"} for number in range(3)]
    for number in range(3):
        write(tmp_path / f"data/train/{number}.png", png(number))
    write(tmp_path / "data/train/metadata.jsonl", json_lines(rows))
    assert made(tmp_path, tmp_path / "data") == (3, 3, {})


def test_parquet_with_pictures_is_read(tmp_path: Path) -> None:
    """shared/cases/hf-image-parquet, and LLaVA's with conversations: they became texts."""
    held = [{"bytes": png(number), "path": f"{number}.png"} for number in range(3)]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": held, "text": ["a", "b", "c"]}), tmp_path / "data/train-00000-of-00001.parquet")
    talks = [
        [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"{number}"}] for number in range(3)
    ]
    pq.write_table(pa.table({"image": held, "conversations": talks}), tmp_path / "data/talks.parquet")
    assert made(tmp_path, tmp_path / "data") == (6, 6, {})
    with pytest.raises(UserError, match=r"talks\.parquet .* holds images but image\.tokenizer is not set"):
        prepare(small_config(tmp_path / "texts", "image.tokenizer=null", source=tmp_path / "data"))
    prepare(small_config(tmp_path / "texts", "image.tokenizer=none", source=tmp_path / "data"))


@pytest.mark.parametrize("column", ["caption", "text"])
def test_the_files_of_img2dataset_are_read(tmp_path: Path, column: str) -> None:
    """shared/cases/img2dataset-files and img2dataset-files-textcol: their table was read, not their pictures."""
    for number in range(3):
        write(tmp_path / f"data/00000/{number:09d}.jpg", png(number))
        write(tmp_path / f"data/00000/{number:09d}.txt", f"cap {number}".encode())
        write(tmp_path / f"data/00000/{number:09d}.json", b'{"caption": "c", "status": "success"}')
    rows = {"url": ["x"] * 4, column: [f"cap {number}" for number in range(4)]}
    pq.write_table(pa.table(rows), tmp_path / "data/00000.parquet")
    write(tmp_path / "data/00000_stats.json", b'{"count": 4, "successes": 3}')
    assert made(tmp_path, tmp_path / "data") == (3, 3, {})
    assert {item.ending: item.count for item in load_plan(tmp_path / "out").not_read}[".parquet"] == 1


def test_an_imagefolder_with_a_csv_is_read(tmp_path: Path) -> None:
    write(tmp_path / "data/train/0.png", png())
    write(tmp_path / "data/train/metadata.csv", b"file_name,text\n0.png,a caption\n")
    assert made(tmp_path, tmp_path / "data") == (1, 1, {})
    write(tmp_path / "data/train/metadata.csv", b"file_name,text\n0.png,another caption\n")
    with pytest.raises(UserError, match=r"input metadata\.csv has changed since it was planned"):
        prepare(small_config(tmp_path / "out", "data.n_train_samples=null", source=tmp_path / "data"))


def test_pictures_are_read_under_the_names_that_others_give_them(tmp_path: Path) -> None:
    """shared/cases/other-image-fields and messages: they became texts, and rejects for want of a text."""
    rows = [
        {"images": ["x.png"], "text": "images list"},
        {"img": "x.png", "text": "img"},
        {"file_name": "x.png", "text": "file_name"},
        {"image_url": "x.png", "text": "image_url"},
        {"image": {"path": "x.png"}, "text": "image object"},
        {"image": "x.png", "text": "right one"},
        {"id": "7", "images": ["x.png"], "conversations": TALK},
        {"Image": "x.png", "Text": "capital keys"},
        {"messages": CHAT, "images": ["x.png"]},
    ]
    write(tmp_path / "x.png", png())
    source = write(tmp_path / "a.jsonl", json_lines(rows))
    assert made(tmp_path, source) == (8, 8, {"a.jsonl#7": "unsupported_media"})


def test_videos_are_rejects_and_nothing_else_is_no_run(tmp_path: Path) -> None:
    """shared/cases/video-record: a literal <video> became text."""
    videos = [{"id": "v0", "video": "a.mp4", "conversations": TURNS}, {"id": "v1", "video": "a.mp4", "text": "t"}]
    source = write(tmp_path / "a.jsonl", json_lines(videos))
    message = refusal(tmp_path, source)
    assert "of 2 records (unsupported_media 2) the first reject is a.jsonl#0: the record holds a video" in message
    assert "image.tokenizer=none" in message
    write(tmp_path / "x.png", png())
    write(source, json_lines([*videos, {"image": "x.png", "text": "t"}, {"text": "a text alone"}]))
    reasons = dict.fromkeys(("a.jsonl#0", "a.jsonl#1"), "unsupported_media")
    assert made(tmp_path, source, "data.max_rejected=1") == (2, 1, reasons)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("a.jsonl", [{"text": "t", "id": 1}, {"text": "t"}], "records with the keys text, id name none"),
        ("a.jsonl", [{"Picture_File": "x.png", "text": "t"}], "Picture_File names a picture"),
        ("a.jsonl", [{"image_url": "https://host/x.png", "text": "t"}], "download them"),
        ("a.jsonl", [{"image": "/etc/passwd", "text": "t"}], "data.outside_images=read allows it"),
        ("a.json", [{"caption": "t"}], "1 records with the keys caption name none"),
        ("a.txt", ["t"], "no picture was found in 1 inputs"),
    ],
)
def test_a_run_that_would_find_no_picture_is_refused_with_what_was_found(
    tmp_path: Path, name: str, rows: Sequence[Any], expected: str
) -> None:
    data = json.dumps(rows).encode() if name.endswith(".json") else json_lines(rows)
    source = write(tmp_path / name, data)
    assert expected in refusal(tmp_path, source)
    (tmp_path / "texts").mkdir()
    assert prepare(small_config(tmp_path / "texts", "image.tokenizer=none", source=source)).num_samples == len(rows)


def test_one_picture_far_behind_is_enough(tmp_path: Path) -> None:
    rows = [{"caption": "t"}] * 5000 + [{"image": "x.png", "caption": "t"}]
    source = write(tmp_path / "a.jsonl", json_lines(rows))
    assert prepare(small_config(tmp_path / "out", "data.n_train_samples=null", source=source)).num_samples == 5001
    assert "5000 records" in refusal(tmp_path / "limited", source, "data.n_train_samples=5000")


def test_texts_beside_a_tar_of_pictures_are_no_matter(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", json_lines([{"text": "t"}]))
    write_tar(tmp_path / "a.tar", pairs(1))
    config = small_config(tmp_path / "out", source=f"[{tmp_path}/b.jsonl,{tmp_path}/a.tar]")
    assert prepare(config).num_samples == 2


def test_a_tree_of_pictures_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cambrian's and Open-LLaVA-NeXT's: every picture was rejected, and nobody said where it was looked for."""
    write(tmp_path / "images/coco/x.png", png())
    source = write(tmp_path / "json/a.json", json.dumps([{"image": "coco/x.png", "conversations": TALK}]).encode())
    small_run(tmp_path / "first", source=source)
    assert rejects.main([str(tmp_path / "first")]) == 0
    assert f"coco/x.png: no such file (looked in {tmp_path}/json)" in capsys.readouterr().out
    assert made(tmp_path, source, f"data.image_root={tmp_path}/images") == (1, 1, {})
    assert account(tmp_path / "out").lost == 0
    config = small_config(tmp_path / "out", f"data.image_root={tmp_path}/json", source=source)
    with pytest.raises(UserError, match=r"data\.image_root was .*images, now .*json"):
        prepare(config)
    gone = refusal(tmp_path / "other", source, f"data.image_root={tmp_path}/gone")
    assert gone.endswith("gone is no folder")


def test_absolute_paths_are_read_where_that_is_allowed(tmp_path: Path) -> None:
    """Liquid's pairs."""
    write(tmp_path / "images/x.png", png())
    row = {"image_path": str(tmp_path / "images/x.png"), "text_prompt": "A picture of a small cat."}
    source = write(tmp_path / "json/a.jsonl", json_lines([row, {**row, "image_path": "../elsewhere/x.png"}]))
    write(tmp_path / "elsewhere/x.png", png())
    assert made(tmp_path, source, "data.outside_images=read") == (2, 2, {})
    below = made(tmp_path / "below", source, f"data.image_root={tmp_path}/images", "data.max_rejected=1")
    assert below == (1, 1, {"a.jsonl#1": "outside_root"})

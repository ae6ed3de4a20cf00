"""Folders of Hugging Face's save_to_disk, and what its features say.   python -m pytest tests/sources/test_arrow.py"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import SourceDataset
from hpcdata.runs.planning import prepare
from hpcdata.samples import ImagePart, Record, Reject, Sample
from hpcdata.sources import InputFile, Options, list_inputs, read_documents, scan
from hpcdata.sources.pictures import telling
from tests.smallruns import small_config, small_run
from tests.sources.source_files import one_by_one, read_all, write
from tests.work.test_task import png


def shown(found: Record) -> str:
    if isinstance(found, Reject):
        return f"{found.reason}: {found.message}"
    assert isinstance(found, Sample)
    return "|".join("I" if isinstance(part, ImagePart) else part.text.strip() for part in found.parts)


def arrow(path: Path, table: pa.Table, *, rows: int = 4, is_file: bool = False, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_options = pa.ipc.IpcWriteOptions(**options)
    make = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with open(path, "wb") as out, make(out, table.schema, options=write_options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def pictures(number: int) -> pa.Table:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    rows = [{"id": f"k{n}", "image": {"bytes": png(n), "path": None}, "conversations": turns} for n in range(number)]
    return pa.Table.from_pylist(rows)


def files_of(path: Path) -> list[InputFile]:
    return list_inputs(str(path), "auto")


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"use_legacy_format": True}])
def test_rows_are_records_wherever_reading_begins(is_file: bool, options: Any, tmp_path: Path) -> None:
    legacy = options.pop("use_legacy_format", False)
    if legacy:
        options["metadata_version"] = pa.ipc.MetadataVersion.V4
    (file,) = files_of(arrow(tmp_path / "x.arrow", pictures(10), is_file=is_file, **options))
    assert file.format == "arrow"
    assert list(map(shown, read_all(file))) == ["I|q|a"] * 10


def test_texts_are_documents_in_bulk_as_one_by_one(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, " ", "b", "c"], "n": [1, 2, 3, 4, 5]})
    (file,) = files_of(arrow(tmp_path / "x.arrow", table, rows=2))
    options = Options(needs_image=False)
    records = read_all(file, options)
    assert file.format == "textarrow"
    assert [shown(item) for item in records][3:] == ["b", "c"]
    found = scan(file, every=2, options=options)
    bulk = read_documents(file, found, first=1, count=4, batch_size=2, options=options)
    assert [row for batch in bulk for row in one_by_one(batch)] == records[1:]


def test_a_damaged_batch_loses_its_rows_and_a_cut_file_ends_in_one_reject(tmp_path: Path) -> None:
    path = arrow(tmp_path / "x.arrow", pa.table({"text": [f"t{n}" * 9 for n in range(12)]}))
    data = path.read_bytes()
    offsets = data.index(b"\x00\x00\x00\x00\x12\x00\x00\x00")
    assert offsets < data.index(b"t0t0")
    write(tmp_path / "a/x.arrow", data[: offsets + 4] + b"\xff\xff\xff\x7f" + data[offsets + 8 :])
    write(tmp_path / "b/x.arrow", data[:-100])
    (damaged,), (cut,) = (files_of(tmp_path / name / "x.arrow") for name in "ab")
    options = Options(needs_image=False)
    found = [shown(item) for item in read_all(damaged, options, every=4)]
    assert [item[:2] for item in found] == [*["da"] * 4, "t4", "t5", "t6", "t7", "t8", "t9", "t1", "t1"]
    assert "damaged_archive: the record batch at byte" in found[0]
    found = [shown(item) for item in read_all(cut, options, every=4)]
    assert [item[:2] for item in found] == ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "da"]
    assert "the file is cut short behind byte" in found[8]


@pytest.mark.parametrize("data", [b"", b"x" * 99, b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(99)])
def test_what_is_no_arrow_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.arrow: is no Arrow"):
        files_of(write(tmp_path / "x.arrow", data))


def test_columns_whose_names_are_no_text_are_refused(tmp_path: Path) -> None:
    data = arrow(tmp_path / "x.arrow", pictures(1)).read_bytes().replace(b"conversations", b"\xff\x80nversations")
    with pytest.raises(UserError, match=r"x\.arrow: is no Arrow"):
        files_of(write(tmp_path / "x.arrow", data))


def test_dictionaries_are_refused(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["a", "b"]).dictionary_encode()})
    (file,) = files_of(arrow(tmp_path / "x.arrow", table))
    with pytest.raises(UserError, match="has dictionaries, which are not read"):
        scan(file, every=2, options=Options())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two splits as save_to_disk writes them, and a cache beside the rows."""
    folder = tmp_path / "saved"
    for split, number in (("train", 5), ("test", 2)):
        name = "data-00000-of-00001.arrow"
        arrow(folder / split / name, pictures(number), rows=2)
        arrow(folder / split / "cache-0123456789abcdef.arrow", pictures(9))
        write(folder / split / "state.json", json.dumps({"_data_files": [{"filename": name}]}).encode())
        write(folder / split / "dataset_info.json", b"{}")
    write(folder / "dataset_dict.json", b'{"splits": ["train", "test"]}')
    return folder


def test_a_saved_folder_is_read_without_its_caches(saved: Path, tmp_path: Path) -> None:
    assert [file.label for file in files_of(saved / "train")] == ["data-00000-of-00001.arrow"]
    assert len(files_of(saved)) == 2
    plan = small_run(tmp_path / "run", "data.n_train_samples=null", source=saved / "train")
    counts = combine(tmp_path / "run", CombineOptions()).counts
    assert (counts.written, plan.found.inputs if plan.found else 0) == (5, 1)
    assert [(item.ending, item.count) for item in plan.not_read] == [("(notes: README, statistics)", 2), (".arrow", 1)]
    raw = SourceDataset(saved, "train")
    assert [raw[item]["metadata"]["key"] for item in (4, 0)] == [f"data-00000-of-00001.arrow#{n}" for n in (4, 0)]
    assert shown(raw.record(3)) == "<image>|I|q|a"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("EIO", "cannot read .*state.json: Input/output error; try again"),
        ("damage", "state.json is damaged, which lists the files of its data set"),
        ("depth", "state.json is nested too deeply"),
        ("absence", "state.json lists data-.*.arrow, which is not there: the data set is not whole"),
    ],
)
def test_a_list_of_files_that_cannot_be_trusted_is_not_taken_for_less_data(
    fault: str, said: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a folder that is whole, all rows of the other one were left out and nobody was told."""
    shutil.copytree(saved, tmp_path / "both/other")
    shutil.copytree(saved, tmp_path / "both/saved")
    state = tmp_path / "both/saved/train/state.json"
    if fault == "EIO":
        real = Path.read_bytes

        def read_bytes(path: Path) -> bytes:
            if path == state:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
    elif fault == "absence":
        next((tmp_path / "both/saved/train").glob("data-*.arrow")).unlink()
    else:
        state.write_bytes(state.read_bytes()[:-9] if fault == "damage" else b"[" * 100_000)
    with pytest.raises(UserError, match=said):
        files_of(tmp_path / "both")


@pytest.mark.slow
def test_what_old_and_new_datasets_save_is_read(tmp_path: Path) -> None:
    """A Sequence of turns is a list of objects in new ones, an object of lists in old ones."""
    code = """
import datasets, sys
turns = {"from": ["human", "gpt"], "value": ["<image>q", "a"]}
spelled = datasets.Sequence({"from": datasets.Value("string"), "value": datasets.Value("string")})
listed = [{"from": datasets.Value("string"), "value": datasets.Value("string")}]
for name, feature in (("sequence", spelled), ("list", listed)):
    features = datasets.Features({"image": datasets.Image(), "conversations": feature})
    talk = turns if name == "sequence" else [dict(zip(turns, pair)) for pair in zip(*turns.values())]
    rows = {"image": [sys.argv[2]] * 3, "conversations": [talk] * 3}
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(f"{sys.argv[1]}/{name}")
    made.to_parquet(f"{sys.argv[1]}/{name}.parquet")
"""
    image = write(tmp_path / "0.png", png(0))
    found = {"new": {}, "old": {"PYTHONPATH": os.environ["HPCDATA_TEST_OLD_DATASETS"]}}
    for name, environment in found.items():
        command = [sys.executable, "-c", code, str(tmp_path / name), str(image)]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
        (tmp_path / name).mkdir()
        subprocess.run(command, check=True, env={**os.environ, **offline, **environment}, capture_output=True)
        for path in (f"{name}/sequence", f"{name}/list", f"{name}/sequence.parquet", f"{name}/list.parquet"):
            dataset = SourceDataset(tmp_path / path, image_root=str(tmp_path))
            assert [shown(dataset.record(item)) for item in range(3)] == ["<image>|I|q|a"] * 3, path


AUDIO = {"speech": {"_type": "Audio"}, "text": {"dtype": "string", "_type": "Value"}}


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "feature", [{"_type": "Audio"}, [{"_type": "Audio"}], {"_type": "List", "feature": {"_type": "Video"}}]
)
def test_sound_is_refused_by_what_the_features_say(ending: str, feature: Any, tmp_path: Path) -> None:
    features = {"info": {"features": {**AUDIO, "speech": feature}}}
    sound = {"bytes": b"RIFF....", "path": "a"}
    rows = [{"speech": sound if isinstance(feature, dict) and len(feature) == 1 else [sound], "text": "t"}]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    path = tmp_path / f"x.{ending}"
    if ending == "arrow":
        arrow(path, table)
    else:
        pq.write_table(table, path)
    kind = "Video" if "feature" in feature else "Audio"
    with pytest.raises(UserError, match=rf"the record holds {kind} \(speech\), which is not read"):
        prepare(small_config(tmp_path / "run", source=path))
    (file,) = files_of(path)
    assert [shown(item) for item in read_all(file, Options(needs_image=False))] == ["t"]


def test_a_stream_is_never_read_as_text(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with pa.ipc.new_file(buffer, pictures(1).schema) as writer:
        writer.write_table(pictures(1))
    with pytest.raises(UserError, match="holds Arrow"):
        files_of(write(tmp_path / "x.json", buffer.getvalue()))


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_bytes_that_a_copy_has_no_place_for_are_said_and_leave_no_object_of_nulls(
    ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_told", set())
    held = [{"bytes": png(), "path": "m.png"}]
    table = pictures(1).append_column(f"depth_{ending}", pa.array(held)).append_column("id_2", pa.array([b"ab"]))
    path = arrow(tmp_path / "x.arrow", table) if ending == "arrow" else tmp_path / "x.parquet"
    if ending == "parquet":
        pq.write_table(table, path)
    options = Options(keeps_members=True)
    (file,) = files_of(path)
    (found,) = read_all(file, options=options)
    assert isinstance(found, Sample)
    line, *others = found.members
    assert len(others) == 1
    assert json.loads(line.blob.data or b"").keys() == {"id", "conversations", "id_2"}
    assert f"what is in depth_{ending}, id_2 is left out" in caplog.text

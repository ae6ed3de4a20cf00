"""The stage `copy`: raw records stay what they are, wherever they are cut.   pytest tests/stages/test_copy.py"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hpcdata import TokenDataset, embedded
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.poisoned import install
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import sha256_tree
from tests.work.test_poison import pictures, run_until_done
from tests.work.test_task import make_tar, png

TARS = ("stage=copy", "text.tokenizer=null", "image.tokenizer=null")
LINES = (*TARS, "copy.format=jsonl")


def copied(folder: Path, *overrides: str, source: str | Path | None = None) -> Path:
    small_run(folder, *overrides, source=source)
    combine(folder, CombineOptions())
    assert [report.problems for report in verify(folder)] == [[], []]
    return folder


def members(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of all members of the tars that a run has written."""
    found = {}
    for path in sorted(folder.glob("shards/*/records/*.tar")):
        with tarfile.open(path) as tar:
            found |= {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    return found


def lines(folder: Path) -> Iterator[dict]:
    for path in sorted(folder.glob("shards/*/records/*.jsonl")):
        for line in path.read_text().splitlines():
            yield {**json.loads(line), "folder": path.parent}


def reasons(folder: Path) -> dict[str, str]:
    return {row.key: row.reason for row in rows_of(folder)}


def test_every_member_is_there_as_it_was_and_a_webdataset_reader_reads_them(tmp_path: Path) -> None:
    import webdataset

    run = copied(tmp_path / "run", *TARS, "data.n_train_samples=null", "data.shard_size=40")
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        original = {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]
    assert members(run) == original
    urls = [str(path) for path in sorted(run.glob("dataset/parts/*/records/*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == len(original) // 2
    assert all(sample["png"] == original[f"{sample['__key__']}.png"] for sample in samples)


def test_the_content_does_not_depend_on_where_it_is_cut(tmp_path: Path) -> None:
    digests = {
        verify(copied(tmp_path / str(size), *TARS, f"data.shard_size={size}"))[0].content_digest for size in (5, 7, 24)
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_tokens_are_those_of_the_originals_after_two_copies(tmp_path: Path) -> None:
    tars = copied(tmp_path / "tars", *TARS)
    as_lines = copied(tmp_path / "lines", *LINES, source=f"{tars}/dataset/parts/*/records/*.tar")
    found = []
    for name, source in (
        ("a", None),
        ("b", f"{tars}/dataset/parts/*/records/*.tar"),
        ("c", f"{as_lines}/shards/*/records/*.jsonl"),
    ):
        small_run(tmp_path / name, source=source)
        found.append(verify(tmp_path / name)[0].content_digest)
    assert found == [found[0]] * 3


def test_names_that_come_again_in_another_input_stay_apart_in_a_tar_of_both(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pieces = [(f"{number:04d}.txt", f"{name}{number}".encode()) for number in range(3)]
        make_tar(tmp_path / f"in/{name}.tar", pieces)
    options = (*TARS, "copy.needs=text", "data.n_train_samples=null")
    run = copied(tmp_path / "run", *options, "data.shard_size=4", source=tmp_path / "in")
    expected = {f"{name}.tar/{number:04d}.txt": f"{name}{number}".encode() for name in "ab" for number in range(3)}
    alone = {"0001.txt": b"b1", "0002.txt": b"b2"}  # a tar of one input keeps its names
    assert members(run) == {key: text for key, text in expected.items() if text not in alone.values()} | alone


def test_lines_name_their_files_and_keep_their_fields(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.PNG").write_bytes(png())
    rows = [
        {"id": 7, "image_path": "one.PNG", "text_prompt": "one", "score": 0.5},
        {"image": ["one.PNG", "two.PNG"], "conversations": [{"from": "human", "value": "<image><image>"}]},
        {"text": "no picture"},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = copied(tmp_path / "run", *LINES, source=tmp_path / "in.jsonl")
    one, two, none = lines(run)
    assert {name: one[name] for name in ("id", "text_prompt", "score", "image")} == {
        **{name: rows[0][name] for name in ("id", "text_prompt", "score")},
        "image": "files/000000000.png",
    }
    assert two["image"] == ["files/000000001.0.png", "files/000000001.1.png"]
    assert "image" not in none
    assert all((item["folder"] / name).read_bytes() == png() for item in (one, two) for name in _names(item["image"]))


def _names(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A good pair, a damaged picture, a picture without text, a text without a picture, a member that is neither."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32)).save(buffer, "PNG")
    pieces = [("good.png", png()), ("good.txt", b"good"), ("bad.png", png()[:60]), ("bad.txt", b"bad")]
    pieces += [("alone.png", png()), ("words.txt", b"words"), ("other.png", png()), ("other.txt", b"other")]
    pieces += [("other.depth.npy", b"\x93NUMPY"), ("other._meta", b"kept"), ("other.empty", b"")]
    return make_tar(tmp_path / "in/mixed.tar", pieces)


def test_what_cannot_be_decoded_is_a_reject_and_its_neighbours_are_copied(tmp_path: Path, mixed: Path) -> None:
    run = copied(tmp_path / "run", *TARS, source=mixed)
    assert reasons(run) == {"mixed.tar/bad": "truncated"} or reasons(run) == {"mixed.tar/bad": "unreadable_image"}
    assert {name for name in members(run) if name.startswith("other")} == {
        *("other.png", "other.txt", "other.depth.npy", "other._meta", "other.empty")
    }
    unseen = copied(tmp_path / "unseen", *TARS, "copy.decode=false", source=mixed)
    assert reasons(unseen) == {}
    assert members(unseen)["bad.png"] == png()[:60]


@pytest.mark.parametrize(
    ("needs", "missing"),
    [
        ("image", {"mixed.tar/words": "missing_image"}),
        ("text", {"mixed.tar/alone": "missing_text"}),
        ("both", {"mixed.tar/words": "missing_image", "mixed.tar/alone": "missing_text"}),
    ],
)
def test_samples_without_what_is_needed_are_rejects(tmp_path: Path, mixed: Path, needs: str, missing: dict) -> None:
    run = copied(tmp_path / "run", *TARS, "copy.decode=false", f"copy.needs={needs}", source=mixed)
    assert reasons(run) == missing


def test_a_picture_that_comes_back_is_copied_by_a_retry(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"image": "a.png", "text": "a"}\n{"text": "b"}\n')
    for number, overrides in enumerate((TARS, LINES)):
        run = tmp_path / f"run{number}"
        (tmp_path / "a.png").unlink(missing_ok=True)
        small_run(run, *overrides, source=tmp_path / "in.jsonl")
        assert list(reasons(run).values()) == ["missing_image"]
        (tmp_path / "a.png").write_bytes(png())
        assert retry(run).recovered == {"missing_image": 1}
        combine(run, CombineOptions())
        assert [report.problems for report in verify(run)] == [[], []]
        assert reasons(run) == {}
        proof = prove(run, 2, seed=1)
        assert (proof.equal, proof.differences) == (2, [])


@pytest.mark.parametrize(
    ("overrides", "name"), [(TARS, "records/*.tar"), (LINES, "records/*.jsonl"), (LINES, "records/files/*")]
)
def test_a_changed_byte_is_found(tmp_path: Path, overrides: tuple[str, ...], name: str) -> None:
    small_run(tmp_path / "run", *overrides)
    path = sorted((tmp_path / "run/shards").glob(f"*/{name}"))[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    problems = verify(tmp_path / "run")[0].problems
    assert len(problems) == 1
    assert path.name in problems[0]


def test_a_file_that_is_gone_or_new_is_found(tmp_path: Path) -> None:
    small_run(tmp_path / "run", *LINES)
    files = sorted((tmp_path / "run/shards").glob("*/records/files/*"))
    files[0].unlink()
    (files[-1].parent / "new.png").write_bytes(b"")
    problems = verify(tmp_path / "run")[0].problems
    assert any(files[0].name in problem and "missing" in problem for problem in problems)
    assert any("new.png" in problem for problem in problems)
    with pytest.raises(UserError, match="is damaged"):
        combine(tmp_path / "run", CombineOptions())


@pytest.mark.parametrize("overrides", [TARS, LINES])
def test_an_unfinished_run_is_combined_with_its_gap(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    prepare(small_config(tmp_path / "run", *overrides))
    assert run_task(tmp_path / "run", StopAfter(6)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    manifest = combine(tmp_path / "run", CombineOptions(allow_tmp=True))
    assert 0 < manifest.counts.written < 24 == manifest.counts.inputs
    assert verify(tmp_path / "run/dataset")[0].problems == []
    for path in (tmp_path / "run/dataset/parts").glob("*/records/*.tar"):
        with tarfile.open(path) as tar:
            assert path.stat().st_size % 10240 == 0
            assert len(tar.getnames()) % 2 == 0


def test_settings_of_tokenizers_are_nothing_to_it_and_its_own_are_fixed(tmp_path: Path) -> None:
    first = small_run(tmp_path / "run", *TARS)
    again = prepare(small_config(tmp_path / "run", *TARS, "data.resolution=64", "data.block_size=3"))
    assert again.fingerprint == first.fingerprint
    with pytest.raises(UserError, match=r"copy\.format was webdataset, now jsonl"):
        prepare(small_config(tmp_path / "run", *LINES))
    with pytest.raises(UserError, match="stage was copy, now tokenize"):
        prepare(small_config(tmp_path / "run"))


def test_compacting_is_refused_and_no_loader_takes_it_for_tokens(tmp_path: Path) -> None:
    run = copied(tmp_path / "run", *TARS)
    with pytest.raises(UserError, match="for datasets of tokens"):
        combine(run, CombineOptions(compact=True))
    with pytest.raises(UserError, match="holds raw records"):
        TokenDataset(run)


def test_documents_keep_their_lines(tmp_path: Path) -> None:
    rows = [{"text": "one", "url": "x"}, {"text": "zwei"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = copied(tmp_path / "run", *LINES, "data.source=text", source=tmp_path / "in.jsonl")
    assert [{name: item[name] for name in row} for item, row in zip(lines(run), rows, strict=True)] == rows


def test_an_unknown_stage_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="stage=fly: there is no such stage, expected one of convert, copy, export, fetch"
    ):
        prepare(small_config(tmp_path / "run", "stage=fly"))


@pytest.mark.slow
def test_a_stopped_and_continued_copy_has_the_same_bytes(tmp_path: Path) -> None:
    for name, overrides in (("tars", TARS), ("lines", LINES)):
        small_run(tmp_path / name, *overrides)
        folder = tmp_path / f"stopped {name}"
        prepare(small_config(folder, *overrides))
        while run_task(folder, StopAfter(5)) is not TaskOutcome.FINISHED:  # type: ignore[arg-type]
            pass
        assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / f"{name}/shards")


@pytest.mark.slow
def test_a_picture_that_kills_its_process_is_rejected_and_its_neighbours_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, *LINES, "data.max_crashes=2"))
    python_path = install(tmp_path / "site", "segfault", [pictures()[9]])
    assert run_until_done(folder, python_path, 3)[-1] == 0
    assert [(row.index, row.reason) for row in rows_of(folder)] == [(9, "crash")]
    small_run(tmp_path / "reference", *LINES)
    expected = [
        (item["key"], item["image"]) for item in lines(tmp_path / "reference") if "000000009" not in item["image"]
    ]
    assert [(item["key"], item["image"]) for item in lines(folder)] == expected
    assert verify(folder)[0].problems == []

"""Array tasks: same bytes under any interruption and any number of processes.   pytest tests/work/test_task.py"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcdata import TokenDataset, embedded, sources
from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.samples import Blob, Kind
from hpcdata.shards import shard
from hpcdata.shards.writing import ShardWriter
from hpcdata.work.task import TaskOutcome, run_task
from tests.crashes import Crash, crash_at
from tests.evidence import CRASHES, KILLS, Evidence
from tests.smallruns import StopAfter, begin, small_config, small_run, start_task
from tests.stopping import wait_for_stop
from tests.trees import sha256_tree


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the shards of an uninterrupted run in one process."""
    return uninterrupted(tmp_path_factory.mktemp("reference") / "run")


def uninterrupted(folder: Path, *overrides: str) -> str:
    small_run(folder, *overrides)
    return sha256_tree(folder / "shards")


def png(color: tuple[int, int, int] = (255, 255, 255), size: tuple[int, int] = (40, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def make_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(stops=st.lists(st.integers(0, 25), max_size=4))
def test_bytes_do_not_depend_on_where_a_task_was_stopped(
    tmp_path_factory: pytest.TempPathFactory, reference: str, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    prepare(small_config(folder))
    for polls in stops:
        run_task(folder, StopAfter(polls))  # type: ignore[arg-type]
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert sha256_tree(folder / "shards") == reference


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stage", [(), ("stage=copy",), ("stage=copy", "copy.format=jsonl"), ("stage=measure",)])
def test_bytes_do_not_depend_on_where_a_task_crashed(
    tmp_path: Path, evidence: Evidence, stage: tuple[str, ...], after: bool
) -> None:
    folder, reference = tmp_path / "run", uninterrupted(tmp_path / "reference", *stage)
    for number in range(1, 700, 37 if stage else 17):
        prepare(small_config(folder, *stage))
        with crash_at(number, after=after) as counter, contextlib.suppress(Crash):
            run_task(folder, StopAfter())  # type: ignore[arg-type]
        shutil.rmtree(folder / "claims", ignore_errors=True)  # a dead process would not be seen as alive
        run_task(folder, StopAfter())  # type: ignore[arg-type]
        assert sha256_tree(folder / "shards") == reference, f"crash at call {number}"
        evidence(CRASHES, int(counter.dead), folder)
        shutil.rmtree(folder)


def test_the_semantics_of_a_run_do_not_depend_on_its_output_directory(tmp_path: Path) -> None:
    first, second = small_run(tmp_path / "a"), small_run(tmp_path / "b/c")
    assert first.fingerprint == second.fingerprint
    assert sha256_tree(tmp_path / "a/shards") == sha256_tree(tmp_path / "b/c/shards")


def test_transient_settings_do_not_change_bytes(tmp_path: Path, reference: str) -> None:
    small_run(tmp_path / "run", "loader.num_workers=0", "data.save_tmp_interval=3600", "cluster.array=0-7")
    assert sha256_tree(tmp_path / "run/shards") == reference


def test_a_stopped_task_continues_where_it_was_and_not_from_zero(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.shard_size=24"))
    assert run_task(folder, StopAfter(5)) is TaskOutcome.STOPPED  # type: ignore[arg-type]
    done = read_status(folder).samples_done
    assert 0 < done < 24
    run_task(folder, StopAfter())  # type: ignore[arg-type]
    claims = [event for _, events in read_ledgers(folder / "ledger") for event in events if event["event"] == "claim"]
    assert sorted(event["resumed"] for event in claims) == [0, done]


def test_finished_shards_are_skipped_when_the_line_is_submitted_again(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/shards").rglob("*")}
    small_run(tmp_path / "run", "cluster.array=0-99")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run/shards").rglob("*")} == before


@pytest.mark.slow
def test_a_shard_that_another_live_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.shard_size=24"))
    other = start_task(folder, stops_at="claims/*")
    try:
        wait_for_stop(other)
        assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
        assert read_status(folder).done == 0
    finally:
        other.send_signal(signal.SIGCONT)
        assert other.wait(60) == 0
    assert read_status(folder).is_finished


@pytest.mark.slow
def test_a_process_that_was_stopped_too_long_changes_nothing_when_it_continues(
    tmp_path: Path, reference: str, evidence: Evidence
) -> None:
    """SIGSTOP, takeover and commit by another, SIGCONT."""
    folder = tmp_path / "run"
    prepare(small_config(folder, "cluster.claim_timeout_s=1"))
    zombie = start_task(folder, stops_at="shards/tmp_*")
    try:
        wait_for_stop(zombie)
        time.sleep(1.5)
        run_task(folder, StopAfter())  # type: ignore[arg-type]
        assert sha256_tree(folder / "shards") == reference
    finally:
        zombie.send_signal(signal.SIGCONT)
        assert zombie.wait(60) == 0, Path(f"{folder}.log").read_text()
    assert sha256_tree(folder / "shards") == reference
    evidence(KILLS, 1, folder)


def test_a_stale_handle_of_a_folder_that_was_taken_over_is_no_failure(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a network file system tells a process whose folder another one has removed."""
    folder = tmp_path / "run"
    prepare(small_config(folder))
    real = ShardWriter.checkpoint

    def checkpoint(writer: ShardWriter) -> None:
        if writer.samples_read == 4:
            monkeypatch.undo()
            files.remove_folder(next((folder / "shards").glob("tmp_*")))
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        real(writer)

    monkeypatch.setattr(ShardWriter, "checkpoint", checkpoint)
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    events = [event["event"] for _, events in read_ledgers(folder / "ledger") for event in events]
    assert events.count("lost") == 1
    assert "failed" not in events
    assert sha256_tree(folder / "shards") == reference


def test_bad_samples_become_rejects_with_a_reason_and_their_neighbours_survive(tmp_path: Path) -> None:
    good = png()
    members = [
        ("000.png", good), ("000.txt", b"first"),
        ("001.png", good[: len(good) // 2]), ("001.txt", b"cut"),
        ("002.png", b""), ("002.txt", b"empty image"),
        ("003.png", good), ("003.txt", b"  \n"),
        ("004.txt", b"no image"),
        ("005.png", good),
        ("006.png", b"<html>not found</html>"), ("006.txt", b"not an image"),
        ("007.png", good), ("007.txt", b"\xff\xfe\xff"),
        ("008.png", good), ("008.txt", b"last"),
    ]  # fmt: skip
    folder = tmp_path / "run"
    small_run(folder, "data.n_train_samples=null", source=make_tar(tmp_path / "a.tar", members))
    rows = [
        json.loads(line)
        for path in sorted((folder / "shards").glob("*/rejects.jsonl"))
        for line in path.read_text().splitlines()
    ]
    reasons = {row["key"].rsplit("/")[-1]: row["reason"] for row in rows}
    assert reasons.pop("001") in ("truncated", "unreadable_image")
    assert reasons == {
        "002": "empty_image", "003": "empty_text", "004": "missing_image", "005": "missing_text",
        "006": "unreadable_image", "007": "unreadable_text",
    }  # fmt: skip
    combine(folder, CombineOptions())
    dataset = TokenDataset(folder)
    assert [dataset[row].key.rsplit("/")[-1] for row in range(len(dataset))] == ["000", "008"]
    assert str(tmp_path) not in "".join(row["message"] for row in rows)
    assert [report.problems for report in verify.verify(folder)] == [[], []]


def test_an_image_whose_codes_are_all_zero_reaches_the_loader(tmp_path: Path) -> None:
    white = make_tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", b"white")])
    small_run(tmp_path / "run", "data.n_train_samples=null", source=white)
    combine(tmp_path / "run", CombineOptions())
    example = TokenDataset(tmp_path / "run")[0]
    image = next(span for span in example.spans if span.kind == Kind.IMAGE)
    assert np.array_equal(image.ids, np.zeros(16)), "white is code 0 of the embedded tokenizer"


def test_text_longer_than_block_size_is_cut_and_counted(tmp_path: Path) -> None:
    long = make_tar(tmp_path / "a.tar", [("a.png", png()), ("a.txt", b"word " * 100)])
    small_run(tmp_path / "run", "data.n_train_samples=null", source=long)
    summary = shard.read_summary(tmp_path / "run/shards/00000-of-00001")
    assert (summary.counts.truncated_texts, summary.counts.text_tokens) == (1, 16)


def _other_tar(tmp_path: Path) -> Path:
    return make_tar(tmp_path / "in.tar", [("a.png", png()), ("a.txt", b"a")])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.resolution=64", "data.resolution was 32, now 64"),
        ("loader.batch_size=8", "loader.batch_size was 4, now 8"),
        ("data.n_train_samples=12", "data.n_train_samples was 24, now 12"),
    ],
)
def test_resuming_with_another_semantic_setting_is_refused_with_the_difference(
    tmp_path: Path, override: str, message: str
) -> None:
    prepare(small_config(tmp_path / "run"))
    begin(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        prepare(small_config(tmp_path / "run", override))


@pytest.mark.parametrize("change", [lambda path: path.touch(), lambda path: path.write_bytes(path.read_bytes() + b"x")])
def test_resuming_with_a_changed_input_is_refused_by_name(tmp_path: Path, change: Callable[[Path], object]) -> None:
    source = tmp_path / "in.tar"
    shutil.copy(embedded.path("quickstart.tar"), source)
    prepare(small_config(tmp_path / "run", source=source))
    begin(tmp_path / "run")
    change(source)
    with pytest.raises(UserError, match=r"input in\.tar has changed since it was planned"):
        prepare(small_config(tmp_path / "run", source=source))
    assert run_task(tmp_path / "run", StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
    events = [event for _, events in read_ledgers(tmp_path / "run/ledger") for event in events]
    assert "has changed since it was planned" in next(event for event in events if event["event"] == "failed")["error"]


def test_an_input_that_is_gone_fails_its_own_shards_only(tmp_path: Path) -> None:
    first = make_tar(tmp_path / "in/a.tar", [("a.png", png()), ("a.txt", b"a")])
    make_tar(tmp_path / "in/b.tar", [("b.png", png()), ("b.txt", b"b")])
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.shard_size=1", source=tmp_path / "in"))
    moved = first.rename(tmp_path / "moved.tar")
    assert run_task(folder, StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
    assert read_status(folder).done == 1
    moved.rename(first)
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert read_status(folder).is_finished


def test_an_input_that_vanishes_while_it_is_read_is_not_committed_as_missing_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.tar"
    shutil.copy2(embedded.path("quickstart.tar"), source)
    folder = tmp_path / "run"
    prepare(small_config(folder, source=source))
    reads, real = 0, Blob.read

    def read(blob: Blob, *, max_bytes: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 10:
            source.rename(tmp_path / "aside")
        return real(blob, max_bytes=max_bytes)

    monkeypatch.setattr(Blob, "read", read)
    assert run_task(folder, StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
    (tmp_path / "aside").rename(source)
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert read_status(folder).counts["rejected"] == {}
    assert read_status(folder).counts["written"] == 24


def test_an_input_that_grows_while_it_is_planned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.tar"
    shutil.copy2(embedded.path("quickstart.tar"), source)
    real = sources.scan

    def scan(*args: object, **kwargs: object) -> object:
        result = real(*args, **kwargs)  # type: ignore[arg-type]
        with open(source, "ab") as file:
            file.write(bytes(512))
        return result

    monkeypatch.setattr(sources, "scan", scan)
    with pytest.raises(UserError, match="changed while it was read"):
        prepare(small_config(tmp_path / "run", source=source))
    assert not (tmp_path / "run/plan.json").exists()


def test_a_shard_folder_without_shard_json_is_made_again(tmp_path: Path, reference: str) -> None:
    folder = tmp_path / "run"
    small_run(folder)
    for path in list((folder / "shards/00001-of-00004").iterdir())[:3]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "shards/00001-of-00004/shard.json").unlink(missing_ok=True)
    assert read_status(folder).done == 3
    small_run(folder)
    assert sha256_tree(folder / "shards") == reference


def test_a_full_disk_ends_the_task_with_one_line_and_the_next_one_finishes(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:

    folder = tmp_path / "run"
    prepare(small_config(folder))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            run_task(folder, StopAfter())  # type: ignore[arg-type]
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    assert sha256_tree(folder / "shards") == reference


def test_the_output_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    with pytest.raises(UserError, match="holds a run with other settings or inputs"):
        prepare(small_config(tmp_path / "run", source=_other_tar(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_of_planning_is_finished_by_the_next_launch(
    tmp_path: Path, evidence: Evidence, after: bool
) -> None:
    expected = prepare(small_config(tmp_path / "expected")).fingerprint
    number, finished = 0, False
    while not finished:
        number += 1
        folder = tmp_path / f"crash{number}"
        config = small_config(folder)
        with crash_at(number, after=after) as counter:
            try:
                prepare(config)
                finished = counter.calls < number
            except Crash:
                pass
        shutil.rmtree(folder / "claims", ignore_errors=True)  # a dead process would not be seen as alive
        assert prepare(config).fingerprint == expected
        assert load_plan(folder).fingerprint == expected
    assert number > 10, "the crash must have been injected in every step"
    evidence(CRASHES, number - 1)


def test_many_processes_make_one_plan(tmp_path: Path) -> None:
    import concurrent.futures

    config = small_config(tmp_path / "run")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(prepare, [config] * 8))
    assert len({plan.fingerprint for plan in plans}) == 1
    assert load_plan(tmp_path / "run").fingerprint == plans[0].fingerprint
    assert not list(RunPaths(tmp_path / "run").claims.iterdir())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.img_token_shift=100", "image codes would collide with text"),
        ("+model.text_vocab_size=100", "image codes would collide with text"),
        ("data.resolution=30", "not a multiple of 8"),
        ("text.tokenizer=/nowhere", "/nowhere"),
        ("text.tokenizer=null", "text.tokenizer is required"),
        ("image.tokenizer=null", "image.tokenizer is not set"),
        ("image.tokenizer=vq16_t2i", "vq_ds16_t2i.pt"),
        ("image.tokenizer=vq17", "unknown image.tokenizer=vq17"),
        ("data.use_chameleon=true", "chameleon"),
        ("loader.batch_size=0", "loader.batch_size=0: expected a number above 0"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(small_config(tmp_path / "run", override))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

"""Shards: checkpoints, resuming, commit.   pytest tests/shards/test_writing.py"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcdata.base import digest, files, sealed
from hpcdata.samples import Example, Kind, Span
from hpcdata.shards import shard
from hpcdata.shards import writing as store
from hpcdata.shards.columns import token_schema
from hpcdata.shards.sealing import LostShard, ShardConflict
from hpcdata.shards.shard import Progress
from hpcdata.shards.stored import read_columns, sum_columns
from hpcdata.shards.tables import EncodedBatch
from hpcdata.shards.takeover import open_shard
from hpcdata.shards.writing import ShardWriter
from tests import made
from tests.crashes import Crash, crash_at, fault_at
from tests.evidence import CRASHES, FAULTS, Evidence
from tests.trees import sha256_tree, tree

NUM = 40
BATCH = 8


def write(
    shards: Path, attempt: str = "a", *, checkpoint_every: int = 2, stop_at: int | None = None, safe: int = 0
) -> bool:
    """Encodes the shard from where its checkpoint is; False when stopped at a sample. safe: least that is there."""
    shards.mkdir(exist_ok=True)
    writer = open_shard(shards, made.header(num_inputs=NUM), attempt)
    if writer is None:
        return True
    assert writer.samples_read >= safe
    for number, start in enumerate(range(writer.samples_read, NUM, BATCH)):
        if stop_at is not None and start >= stop_at:
            writer.close()
            return False
        writer.append(made.batch(start, min(NUM, start + BATCH)))
        if number % checkpoint_every == 0:
            writer.checkpoint()
    writer.commit()
    return True


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes that die, and not machines, syncing makes no difference but time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    write(tmp_path / "expected")
    return tree(tmp_path / "expected")


def test_a_committed_shard_opens_with_tensordict(tmp_path: Path) -> None:
    tensordict = pytest.importorskip("tensordict")
    write(tmp_path / "shards")
    loaded = tensordict.TensorDict.load_memmap(tmp_path / "shards" / "00000-of-00001")
    first = made.example(0)
    assert loaded["tokens", "ids"][: len(first.spans[0].ids)].tolist() == first.spans[0].ids.tolist()
    assert loaded["samples", "index"][:4].tolist() == [0, 1, 2, 4]
    assert loaded["spans", "grid"].shape == (2 * loaded["samples"].batch_size[0], 2)


def test_the_account_of_a_shard_balances_and_lists_every_reject(tmp_path: Path) -> None:
    write(tmp_path / "shards")
    folder = tmp_path / "shards" / "00000-of-00001"
    counts = shard.read_summary(folder).counts
    rejected = [json.loads(line)["index"] for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert counts.is_balanced()
    assert (counts.inputs, counts.rejected, counts.duplicate) == (NUM, {"unreadable_image": 5}, 4)
    assert rejected == [3, 5, 10, 16, 17, 24, 27, 31, 38]


def test_codes_that_are_all_zero_survive(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    writer = open_shard(tmp_path / "shards", made.header(num_inputs=1), "a")
    assert writer is not None
    image = Span(kind=Kind.IMAGE, ids=np.zeros(16, np.int64), height=4, width=4)
    writer.append(EncodedBatch(examples=[Example(index=0, key="zero", spans=(image,))]))
    writer.commit()
    summary = shard.read_summary(tmp_path / "shards" / "00000-of-00001")
    assert (summary.counts.written, summary.counts.images, summary.counts.image_tokens) == (1, 1, 16)


@pytest.mark.parametrize("value", [-1, 65536, 2**31])
def test_ids_that_do_not_fit_the_dtype_are_refused_and_never_wrap(tmp_path: Path, value: int) -> None:
    (tmp_path / "shards").mkdir()
    writer = open_shard(tmp_path / "shards", made.header(num_inputs=1), "a")
    assert writer is not None
    span = Span(kind=Kind.TEXT, ids=np.array([value]))
    with pytest.raises(OverflowError, match=r"do not fit uint16"):
        writer.append(EncodedBatch(examples=[Example(index=0, key="k", spans=(span,))]))
    writer.close()


def test_a_shard_without_any_written_sample_commits_and_reads_back(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    writer = open_shard(tmp_path / "shards", made.header(num_inputs=2), "a")
    assert writer is not None
    writer.append(EncodedBatch(examples=[], rejects=[made.reject(0), made.reject(1)]))
    assert writer.commit()
    folder = tmp_path / "shards" / "00000-of-00001"
    summary = shard.read_summary(folder)
    assert shard.check_files(folder, summary) == []
    assert shard.check_sizes(folder, summary) == []
    assert len(read_columns(folder, token_schema("uint16"), summary.sizes)["tokens/ids.memmap"]) == 0


def test_the_content_digest_is_that_of_the_stored_examples_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "shards")
    folder = tmp_path / "shards" / "00000-of-00001"
    summary = shard.read_summary(folder)
    arrays = read_columns(folder, token_schema("uint16"), summary.sizes)
    pieces = [sum_columns(arrays, start, start + 1) for start in range(summary.sizes["samples"])]
    assert digest.to_hex(digest.add(*reversed(pieces))) == summary.content_digest


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, NUM), max_size=5), every=st.integers(1, 3))
def test_bytes_do_not_depend_on_where_attempts_stopped(
    tmp_path_factory: pytest.TempPathFactory, expected: dict[str, bytes], stops: list[int], every: int
) -> None:
    shards = tmp_path_factory.mktemp("run") / "shards"
    for number, stop in enumerate(stops):
        write(shards, f"a{number}", stop_at=stop, checkpoint_every=every)
    write(shards, "last")
    assert tree(shards) == expected


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_is_finished_by_the_next_attempt_with_the_same_bytes(
    tmp_path: Path, expected: dict[str, bytes], evidence: Evidence, after: bool
) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        shards = tmp_path / f"crash{number}"
        shards.mkdir()
        write(shards, "before", stop_at=16)
        with crash_at(number, after=after) as counter:
            try:
                write(shards, "crashed")
                finished = counter.calls < number
            except Crash:
                pass
        write(shards, "next")
        assert tree(shards) == expected, f"crash {'after' if after else 'before'} call {number}"
    assert number > 60, "the crash must have been injected in every step"
    evidence(CRASHES, number - 1)


@pytest.mark.usefixtures("fast_disk")
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_step_of_a_commit_keeps_the_checkpoint(tmp_path: Path, evidence: Evidence, after: bool) -> None:
    """Of a shard without rejects: the file for them is removed before the shard is complete."""
    header, number, finished = made.header(num_inputs=BATCH), 0, False
    while not finished:
        number += 1
        shards = tmp_path / f"crash{number}"
        shards.mkdir()
        writer = open_shard(shards, header, "a")
        assert writer is not None
        writer.append(EncodedBatch(examples=[made.example(index) for index in range(BATCH)]))
        writer.checkpoint()
        with crash_at(number, after=after) as counter:
            try:
                writer.commit()
                finished = counter.calls < number
            except Crash:
                pass
        successor = None if (shards / header.name).exists() else open_shard(shards, header, "b")
        assert successor is None or successor.samples_read == BATCH, f"crash at call {number}"
    evidence(CRASHES, number - 1)


@pytest.mark.slow
@pytest.mark.usefixtures("fast_disk")
@pytest.mark.parametrize(
    ("number_of_error", "lasting"), [(errno.ENOSPC, True), (errno.ENOSPC, False), (errno.EIO, False)]
)
def test_a_fault_of_the_disk_at_any_step_loses_no_checkpoint(
    tmp_path: Path, expected: dict[str, bytes], evidence: Evidence, number_of_error: int, lasting: bool
) -> None:
    """Nor is one given up for an empty one on a full disk; one that cannot be read is kept beside a new beginning."""
    number, finished = 0, False
    while not finished:
        number += 1
        shards = tmp_path / f"fault{number}"
        write(shards, "before", checkpoint_every=1, stop_at=24)
        with fault_at(number, number_of_error, lasting=lasting) as counter:
            try:
                write(shards, "faulty", safe=24 if number_of_error in files.NO_ROOM else 0)
                finished = counter.calls < number
            except (OSError, LostShard):
                pass
        where = f"{os.strerror(number_of_error)} at call {number}"
        if not (shards / "00000-of-00001").exists():
            write(shards, "next", safe=24)
        assert tree(shards) == expected, where
    assert number > 60, "the fault must have been injected in every step"
    evidence(FAULTS, number - 1)


def test_two_crashes_in_a_row_lose_nothing(tmp_path: Path, expected: dict[str, bytes], evidence: Evidence) -> None:
    for first in range(1, 120, 7):
        shards = tmp_path / f"crash{first}"
        shards.mkdir()
        for number, attempt in ((first, "a"), (first // 2 + 1, "b")):
            with crash_at(number, after=True) as counter:
                try:
                    write(shards, attempt)
                except Crash:
                    continue
                finally:
                    evidence(CRASHES, int(counter.dead))
        write(shards, "next")
        assert tree(shards) == expected


def test_resuming_keeps_what_was_checkpointed(tmp_path: Path) -> None:
    write(tmp_path / "shards", "a", checkpoint_every=1, stop_at=24)
    writer = open_shard(tmp_path / "shards", made.header(num_inputs=NUM), "b")
    assert writer is not None
    assert writer.samples_read == 24
    writer.close()


def test_a_checkpoint_is_on_disk_before_progress_json_vouches_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shards").mkdir()
    writer = open_shard(tmp_path / "shards", made.header(num_inputs=NUM), "a")
    assert writer is not None
    writer.append(made.batch(0, BATCH))
    synced: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        assert {"ids.memmap", "length.memmap", "first_token.memmap", "bytes.memmap", "rejects.jsonl"} <= set(synced)
        assert any(name.startswith(".progress.json") for name in synced)
        synced.append("replaced")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    writer.checkpoint()
    assert synced[-2:] == ["replaced", next((tmp_path / "shards").iterdir()).name], "and the folder's entry after it"
    successor = open_shard(tmp_path / "shards", made.header(num_inputs=NUM), "b")  # "a" was killed: never closed
    assert successor is not None
    assert successor.samples_read == BATCH
    successor.close()


def test_resuming_leaves_one_checkpoint_folder(tmp_path: Path) -> None:
    for attempt in "abc":
        write(tmp_path / "shards", attempt, checkpoint_every=1, stop_at=24)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["tmp_00000-of-00001.c"]


def test_the_fullest_checkpoint_wins_and_never_an_empty_one(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write(shards, "a", checkpoint_every=1, stop_at=24)
    full = next(shards.glob("tmp_*.a"))
    full.rename(tmp_path / "aside")
    write(shards, "b", checkpoint_every=1, stop_at=8)
    (tmp_path / "aside").rename(full)
    writer = open_shard(shards, made.header(num_inputs=NUM), "c")
    assert writer is not None
    assert writer.samples_read == 24
    writer.close()


def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, expected: dict[str, bytes]) -> None:
    shards = tmp_path / "shards"
    write(shards, "a", checkpoint_every=1, stop_at=24)
    ids = next(shards.glob("tmp_*.a")) / "tokens/ids.memmap"
    content = bytearray(ids.read_bytes())
    content[100] ^= 1
    ids.write_bytes(content)
    write(shards, "b")
    assert tree(shards) == expected


@pytest.mark.parametrize("changed", ["samples_read", "sizes", "counts", "files"])
def test_a_checkpoint_whose_account_was_changed_is_not_used(
    tmp_path: Path, expected: dict[str, bytes], changed: str
) -> None:
    """Sealed again: a checkpoint that says one sample more would lose it."""
    shards = tmp_path / "shards"
    write(shards, "a", checkpoint_every=1, stop_at=24)
    path = next(shards.glob("tmp_*.a")) / "progress.json"
    values = sealed.read_json(path)
    if changed == "samples_read":
        values["samples_read"] += 1
    elif changed == "files":
        values["files"]["samples/index.memmap"][0] -= 8
    else:
        values[changed]["samples" if changed == "sizes" else "inputs"] += 1
    path.write_bytes(sealed.to_json(values))
    write(shards, "b")
    assert tree(shards) == expected


def test_a_checkpoint_of_another_plan_is_not_used(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write(shards, "a", checkpoint_every=1, stop_at=24)
    progress = next(shards.glob("tmp_*.a")) / "progress.json"
    progress.write_text(progress.read_text().replace(made.FINGERPRINT, "0" * 64))
    writer = open_shard(shards, made.header(num_inputs=NUM), "b")
    assert writer is not None
    assert writer.samples_read == 0
    writer.close()


def test_a_process_back_from_the_dead_cannot_change_anything(tmp_path: Path, expected: dict[str, bytes]) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    zombie = open_shard(shards, made.header(num_inputs=NUM), "zombie")
    assert zombie is not None
    zombie.append(made.batch(0, 8))
    zombie.checkpoint()
    write(shards, "successor")
    before = sha256_tree(shards)
    zombie.append(made.batch(8, 16))
    with pytest.raises(LostShard):
        zombie.checkpoint()
    zombie.close()
    assert sha256_tree(shards) == before
    assert tree(shards) == expected


def test_the_second_committer_of_equal_bytes_drops_its_copy(tmp_path: Path, expected: dict[str, bytes]) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    first = open_shard(shards, made.header(num_inputs=NUM), "first")
    second = store.ShardWriter(shards, made.header(num_inputs=NUM), "second")
    second.start()
    assert first is not None
    for writer in (first, second):
        for start in range(0, NUM, BATCH):
            writer.append(made.batch(start, start + BATCH))
    os.rename(shards / "tmp_00000-of-00001.second", tmp_path / "hidden")  # not seen by the first's clean-up
    assert first.commit()
    os.rename(tmp_path / "hidden", shards / "tmp_00000-of-00001.second")
    assert not second.commit()
    assert tree(shards) == expected


def test_a_second_committer_with_other_bytes_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    write(shards)
    before = sha256_tree(shards)
    other = store.ShardWriter(shards, made.header(num_inputs=NUM), "other")
    other.start()
    other.append(EncodedBatch(examples=[made.example(index) for index in range(NUM)]))
    with pytest.raises(ShardConflict, match=r"tokens/ids\.memmap"):
        other.commit()
    assert sha256_tree(shards) == before


def test_a_committed_shard_tells_nothing_of_when_or_where_it_was_made(tmp_path: Path) -> None:
    write(tmp_path / "one", "host1-123", checkpoint_every=1)
    write(tmp_path / "two", "host2-456", checkpoint_every=3, stop_at=16)
    write(tmp_path / "two", "host3-789")
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")


def test_every_damaged_or_missing_or_added_file_is_found(tmp_path: Path) -> None:
    write(tmp_path / "shards")
    folder = tmp_path / "shards" / "00000-of-00001"
    summary = shard.read_summary(folder)
    assert shard.check_files(folder, summary) == []
    ids = folder / "tokens/ids.memmap"
    good = ids.read_bytes()
    ids.write_bytes(good[:-2] + b"\xff\xff")
    assert shard.check_files(folder, summary) == [f"tokens/ids.memmap: its sha256 is not the one in {shard.SHARD}"]
    assert shard.check_sizes(folder, summary) == []
    ids.write_bytes(good[:-2])
    assert shard.check_sizes(folder, summary) == [f"tokens/ids.memmap: {len(good) - 2} bytes, expected {len(good)}"]
    ids.unlink()
    (folder / "extra").touch()
    assert shard.check_files(folder, summary) == ["extra: not listed in shard.json", "tokens/ids.memmap: missing"]


def test_a_takeover_in_the_middle_of_a_commit_cannot_publish_half_a_shard(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow attempt stalls while it seals its folder; another adopts its checkpoint, removes the folder, commits."""
    shards = tmp_path / "shards"
    shards.mkdir()
    slow = open_shard(shards, made.header(num_inputs=NUM), "slow")
    assert slow is not None
    for start in range(0, NUM, BATCH):
        slow.append(made.batch(start, start + BATCH))
        slow.checkpoint()
    real, stalled = os.fsync, []

    def fsync(descriptor: int) -> None:
        if not stalled and "length.memmap" in os.readlink(f"/proc/self/fd/{descriptor}"):
            stalled.append(True)
            write(shards, "fast")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LostShard):
        slow.commit()
    assert stalled
    assert tree(shards) == expected


def test_a_shard_folder_that_lost_its_files_is_made_again(tmp_path: Path, expected: dict[str, bytes]) -> None:
    shards = tmp_path / "shards"
    write(shards, "a")
    (shards / "00000-of-00001" / "shard.json").unlink()
    write(shards, "b")
    assert tree(shards) == expected


def test_an_attempt_that_finds_its_checkpoint_taken_away_leaves_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attempts see one checkpoint. The slow one must not begin anew and remove what the fast one made of it."""
    shards = tmp_path / "shards"
    write(shards, "a", checkpoint_every=1, stop_at=24)
    real, overtaken = ShardWriter.adopt, []

    def adopt(writer: ShardWriter, old: Path, progress: Progress) -> None:
        monkeypatch.undo()
        if not overtaken:
            overtaken.append(open_shard(shards, made.header(num_inputs=NUM), "fast"))
        real(writer, old, progress)

    monkeypatch.setattr(ShardWriter, "adopt", adopt)
    with pytest.raises(LostShard):
        open_shard(shards, made.header(num_inputs=NUM), "slow")
    (fast,) = overtaken
    assert fast is not None
    fast.checkpoint()
    fast.close()
    assert fast.samples_read == 24


def test_an_owner_that_is_alive_and_ahead_keeps_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    owner = open_shard(shards, made.header(num_inputs=NUM), "owner")
    assert owner is not None
    owner.append(made.batch(0, BATCH))
    owner.checkpoint()
    real = ShardWriter.adopt

    def adopt(writer: ShardWriter, old: Path, progress: Progress) -> None:
        real(writer, old, progress)
        owner.append(made.batch(BATCH, 2 * BATCH))
        owner.checkpoint()

    monkeypatch.setattr(ShardWriter, "adopt", adopt)
    other = open_shard(shards, made.header(num_inputs=NUM), "other")
    monkeypatch.undo()
    assert other is not None
    other.close()
    owner.close()
    write(shards, "next", safe=2 * BATCH)


def test_what_nfs_keeps_of_open_files_does_not_enter_a_shard(tmp_path: Path, expected: dict[str, bytes]) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    writer = open_shard(shards, made.header(num_inputs=NUM), "a")
    assert writer is not None
    for start in range(0, NUM, BATCH):
        writer.append(made.batch(start, start + BATCH))
    left = next(shards.glob("tmp_*")) / ".nfs000000000001"
    left.touch()
    writer.commit()
    (shards / "00000-of-00001" / left.name).unlink()
    assert tree(shards) == expected

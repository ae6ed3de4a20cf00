"""Picking shards: what it costs at any size, and who gets what.   pytest tests/runs/test_picking.py"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.picking import MISSES, Picker
from hpcdata.runs.plan import Plan
from hpcdata.shards.takeover import open_shard
from tests import made

CALLS = ("open", "stat", "listdir", "scandir", "unlink", "rename", "utime", "mkdir", "link", "replace", "readlink")


@contextlib.contextmanager
def counted(folder: Path) -> Iterator[Counter[str]]:
    """Counts file-system calls on paths in `folder`."""
    calls: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        for name in CALLS:
            real = getattr(os, name)

            def call(path: object, *args: object, _name: str = name, _real: object = real, **options: object) -> object:
                calls[_name] += str(path).startswith(str(folder))
                return _real(path, *args, **options)  # type: ignore[operator]

            stack.enter_context(mock.patch.object(os, name, call))
        real_exists = os.path.exists
        stack.enter_context(
            mock.patch.object(os.path, "exists", lambda path: calls.update(["exists"]) or real_exists(path))
        )
        yield calls


def owner(attempt: str) -> Owner:
    """On a machine of its own: the others do not know whether it lives."""
    return dataclasses.replace(Owner.of_this_process(attempt), machine=attempt)


def picker(plan: Plan, paths: RunPaths, attempt: str = "me") -> tuple[Picker, Claims]:
    claims = Claims(paths.claims, owner(attempt), timeout_s=60)
    return Picker(plan, paths, claims, attempt), claims


def taken(chosen: Picker, number: int, closed: set[str] | None = None) -> list[str]:
    return [spec.name for spec, _ in zip(chosen.pick(closed or set(), lambda: False), range(number), strict=False)]


def new_run(folder: Path, num_shards: int) -> tuple[Plan, RunPaths]:
    plan, paths = made.plan(num_shards * 16), RunPaths(folder)
    paths.shards.mkdir(parents=True)
    return plan, paths


def commit(paths: RunPaths, name: str) -> None:
    (paths.shards / name).mkdir()
    (paths.shards / name / "shard.json").touch()


@pytest.mark.parametrize("num_shards", [100, 3000])
def test_a_claim_costs_a_few_calls_whatever_the_size_of_the_run(tmp_path: Path, num_shards: int) -> None:
    plan, paths = new_run(tmp_path, num_shards)
    for shard in range(0, num_shards, 2):
        commit(paths, plan.shard_names[shard])
    chosen, _ = picker(plan, paths)
    with counted(tmp_path) as calls:
        assert len(taken(chosen, 40)) == 40
    assert calls["listdir"] == 3, "shards, dataset/parts and claims, once for 40 claims"
    assert calls.total() <= 3 + 40 * 10


def test_many_tasks_at_once_list_the_folder_rarely_and_share_the_shards(tmp_path: Path) -> None:
    """20 tasks take turns on 400 shards: each shard once, and a listing for every dozens of shards."""
    plan, paths = new_run(tmp_path, 400)
    tasks = []
    for number in range(20):
        chosen, claims = picker(plan, paths, f"task{number}")
        tasks.append((chosen.pick(set(), lambda: False), claims))
    done: list[str] = []
    order = random.Random(0)
    with counted(tmp_path) as calls:
        while tasks:
            number = order.randrange(len(tasks))
            picks, claims = tasks[number]
            spec = next(picks, None)
            if spec is None:
                tasks.pop(number)
                continue
            done.append(spec.name)
            commit(paths, spec.name)
            claims.release(spec.name)
    assert sorted(done) == plan.shard_names
    assert calls["listdir"] < 3 * 20 * 12, "about the logarithm of the number of shards for each task"
    assert calls.total() < 400 * 30


def test_half_done_shards_come_first_and_dead_claims_are_taken_over(tmp_path: Path) -> None:
    plan, paths = new_run(tmp_path, 50)
    writer = open_shard(paths.shards, plan.header(plan.shard(31)), "gone")
    assert writer is not None
    writer.close()
    _, dead = picker(plan, paths, "dead")
    assert dead.try_claim(plan.shard_names[7])
    os.utime(paths.claims / plan.shard_names[7], (0, 0))
    chosen, _ = picker(plan, paths)
    names = taken(chosen, 50)
    assert names[0] == plan.shard_names[31]
    assert sorted(names) == plan.shard_names


def test_shards_in_the_hands_of_others_are_left_to_them(tmp_path: Path) -> None:
    plan, paths = new_run(tmp_path, 10)
    _, other = picker(plan, paths, "other")
    for name in plan.shard_names[:4]:
        assert other.try_claim(name)
    chosen, _ = picker(plan, paths)
    assert sorted(taken(chosen, 10)) == plan.shard_names[4:]
    assert chosen.list_open(set()) == plan.shard_names


def test_a_shard_that_was_committed_after_the_listing_is_not_given(tmp_path: Path) -> None:
    plan, paths = new_run(tmp_path, 2 * MISSES)
    chosen, _ = picker(plan, paths)
    picks = chosen.pick(set(), lambda: False)
    first = next(picks).name
    for name in set(plan.shard_names) - {first}:
        commit(paths, name)
    assert [spec.name for spec in picks] == []


def test_a_folder_that_lost_its_shard_json_is_open_again_when_all_others_are_done(tmp_path: Path) -> None:
    plan, paths = new_run(tmp_path, 5)
    for name in plan.shard_names:
        commit(paths, name)
    (paths.shards / plan.shard_names[2] / "shard.json").unlink()
    chosen, _ = picker(plan, paths)
    assert chosen.list_open(set()) == [plan.shard_names[2]]
    assert taken(chosen, 5) == [plan.shard_names[2]]


def test_failed_shards_are_not_tried_again(tmp_path: Path) -> None:
    plan, paths = new_run(tmp_path, 5)
    chosen, _ = picker(plan, paths)
    assert sorted(taken(chosen, 5, closed={plan.shard_names[0]})) == plan.shard_names[1:]

"""Ledgers that somebody edited or a disk damaged: everything else of the run is still shown, and the line is named.

pytest tests/hostile/test_hostile_ledgers.py
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpcdata.history.ledger import LedgerReader, read_ledgers
from hpcdata.report.page import render
from hpcdata.report.status import Observer, Status
from hpcdata.report.summary import describe
from hpcdata.report.tails import read_tails, show
from hpcdata.report.watch import view
from tests.selection import examples
from tests.smallruns import small_run

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledgers") / "run"
    small_run(folder)
    return folder


def events_of(run: Path) -> list[dict[str, Any]]:
    return [event for _, events in read_ledgers(run / "ledger") for event in events]


def look(run: Path) -> Status:
    """All that reads ledgers and shows what they say."""
    observer = Observer(run)
    status = observer.look()
    assert status.is_finished
    console = Console(file=io.StringIO(), width=120)
    console.print(view(status, observer, 50, 1.0))
    assert isinstance(console.file, io.StringIO)
    lines = [*describe(status, run).split("\n"), *console.file.getvalue().split("\n")]
    lines += [*show(read_tails(run, only_failed=False)), *render(observer, status).split("\n")]
    assert not [line for line in lines if CONTROLS.search(line)]
    return status


def with_ledger(run: Path, content: bytes, check: Callable[[Status], None]) -> None:
    path = run / "ledger/other-1-2.jsonl"
    path.write_bytes(content)
    try:
        check(look(run))
    finally:
        path.unlink()


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_field_of_any_event(run: Path, data: st.DataObject) -> None:
    events = data.draw(st.lists(st.sampled_from(events_of(run)), min_size=1, max_size=4))
    changed = []
    for event in events:
        name = data.draw(st.sampled_from([*event, "error", "name", "how"]))
        value = data.draw(st.none() | VALUES)
        changed.append(
            {key: item for key, item in event.items() if key != name} if value is None else {**event, name: value}
        )
    content = "".join(json.dumps(event) + "\n" for event in changed).encode()
    with_ledger(run, content, lambda status: None)


HOSTILE = {
    "no object": (b"[1]\n", "line 1: is of type list, expected an object"),
    "no JSON": (b"\xff\n", "line 1: is not JSON"),
    "no kind": (b'{"time": 1}\n', "line 1: has no 'event'"),
    "kind of another type": (b'{"event": [], "time": 1}\n', "'event' is of type list"),
    "no time": (b'{"event": "start"}\n', "line 1: has no 'time'"),
    "a time that is a text": (b'{"event": "end", "time": "now"}\n', "'time' is of type str, expected seconds"),
    "a time without end": (b'{"event": "end", "time": 1e300}\n', "'time' is 1e+300, expected seconds"),
    "a time that is true": (b'{"event": "end", "time": true}\n', "'time' is of type bool, expected seconds"),
    "a shard that is a list": (b'{"event": "claim", "time": 1, "shard": []}\n', "'shard' is of type list"),
    "less than no samples": (b'{"event": "checkpoint", "time": 1, "shard": "x", "samples": -1}\n', "'samples' is -1"),
    "more than all": (b'{"event": "claim", "time": 1, "shard": "x", "resumed": 9999999999999999999}\n', "'resumed' is"),
    "an account of texts": (
        b'{"event": "commit", "time": 1, "shard": "x", "counts": {"inputs": "all"}}\n',
        "'counts' is not what it should be",
    ),
    "no account": (b'{"event": "commit", "time": 1, "shard": "x", "counts": null}\n', "'counts' is not"),
    "reasons of texts": (
        b'{"event": "commit", "time": 1, "shard": "x", "counts": {"rejected": {"bad": "all"}}}\n',
        "'counts' is not",
    ),
    "ids that are lists": (b'{"event": "start", "time": 1, "slurm": {"SLURM_JOB_ID": [1]}}\n', "'slurm' is not"),
    "an error that is none": (b'{"event": "error", "time": 1, "error": {}}\n', "'error' is of type dict"),
    "deep": (b'{"event": "error", "time": 1, "error": ' + b"[" * 9000 + b"\n", "line 1: is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_the_line_is_named_and_the_others_are_read(run: Path, name: str) -> None:
    line, expected = HOSTILE[name]
    good = json.dumps({"event": "start", "time": 5.0, "host": "elsewhere"}).encode() + b"\n"

    def check(status: Status) -> None:
        assert list(status.damaged_ledgers) == ["other-1-2.jsonl"]
        assert expected in status.damaged_ledgers["other-1-2.jsonl"].replace("line 2", "line 1")
        assert "elsewhere" in {task.host for task in status.tasks}
        assert "ledger/other-1-2.jsonl line" in describe(status, run)

    with_ledger(run, line + good, check)
    with_ledger(run, good + line, check)


def test_control_characters_are_not_printed(run: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\u202e"
    start = {"event": "start", "time": 5.0, "host": evil, "slurm": {"SLURM_JOB_ID": evil}}
    events = [
        start,
        {"event": "failed", "time": 6.0, "shard": evil, "error": evil},
        {"event": "signal", "time": 7.0, "name": evil},
    ]
    with_ledger(run, "".join(json.dumps(event) + "\n" for event in events).encode(), lambda status: None)


def test_the_end_of_a_killed_process_is_no_damage(run: Path) -> None:
    good = json.dumps({"event": "start", "time": 5.0, "host": "elsewhere"}).encode() + b"\n"
    with_ledger(run, good + good[:20], lambda status: status.damaged_ledgers == {})


def test_a_file_that_cannot_be_read_is_named_and_tried_again(tmp_path: Path) -> None:
    good = json.dumps({"event": "start", "time": 5.0}).encode() + b"\n"
    (tmp_path / "a.jsonl").write_bytes(good)
    (tmp_path / "b.jsonl").mkdir()
    (tmp_path / "b.jsonl/x").touch()
    os.mkfifo(tmp_path / "c.jsonl")
    reader = LedgerReader(tmp_path)
    assert [name for name, _ in reader.read()] == ["a"]
    assert reader.damaged == {"b.jsonl": "cannot be read: Is a directory", "c.jsonl": "cannot be read: Illegal seek"}
    shutil.rmtree(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").write_bytes(good)
    assert [name for name, _ in reader.read()] == ["b"]
    assert list(reader.damaged) == ["c.jsonl"]

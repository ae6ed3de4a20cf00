"""The ledger: what is written comes back, also while it is being written.   pytest tests/history/test_ledger.py"""

from __future__ import annotations

import json
from pathlib import Path

from hpcdata.history.ledger import Ledger, LedgerReader, read_ledgers


def write(ledger: Ledger, shard: str, checkpoints: int, *, commit: bool = True) -> None:
    ledger.write("claim", shard=shard, resumed=0)
    for number in range(checkpoints):
        ledger.write("checkpoint", shard=shard, samples=number, busy_s=1.0)
    if commit:
        ledger.write("commit", shard=shard, samples=checkpoints, busy_s=1.0)


def kinds(reader: LedgerReader) -> list[str]:
    return [event["event"] for _, events in reader.read() for event in events]


def test_only_the_last_of_checkpoints_that_follow_each_other_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "a")
    ledger.write("start", host="h")
    write(ledger, "x", 5)
    write(ledger, "y", 3, commit=False)
    events = [event for _, events in LedgerReader(tmp_path).read() for event in events]
    assert [event["event"] for event in events] == ["start", "claim", "commit", "claim", "checkpoint"]
    assert events[-1]["samples"] == 2
    assert len([event for _, events in read_ledgers(tmp_path) for event in events]) == 12


def test_a_second_reading_brings_only_what_is_new(tmp_path: Path) -> None:
    ledger, reader = Ledger(tmp_path, "a"), LedgerReader(tmp_path)
    write(ledger, "x", 2, commit=False)
    assert kinds(reader) == ["claim", "checkpoint"]
    assert kinds(reader) == []
    ledger.write("checkpoint", shard="x", samples=9, busy_s=1.0)
    Ledger(tmp_path, "b").write("start", host="h")
    assert sorted(kinds(reader)) == ["checkpoint", "start"]


def test_an_incomplete_line_waits_until_it_is_complete(tmp_path: Path) -> None:
    reader, line = LedgerReader(tmp_path), json.dumps({"event": "end", "time": 1.0})
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n" + line[:7])
    assert kinds(reader) == ["end"]
    path.write_text(line + "\n" + line + "\n")
    assert kinds(reader) == ["end"]


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    good = json.dumps({"event": "end", "time": 1.0}).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xff\n\n" + good + b'\n{"event": \n[1]\n' + b"[" * 5000 + b"\n" + good + b"\n")
    assert kinds(LedgerReader(tmp_path)) == ["end", "end"]
    assert [len(events) for _, events in read_ledgers(tmp_path)] == [2]


def test_no_ledger_is_no_event(tmp_path: Path) -> None:
    assert kinds(LedgerReader(tmp_path / "none")) == []

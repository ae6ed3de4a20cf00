"""What `hpcdata download` does with its arguments: sets after sets, in several processes, and the words at the end."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import forked, logs, units
from hpcdata.base.command import DONE, FAILED, UNFINISHED, complain, quoted, say, told
from hpcdata.base.errors import Failed, Unfinished, UserError
from hpcdata.base.signals import StopFlag
from hpcdata.catalogue import checking, fetching, placing
from hpcdata.catalogue.accounts import Account, Options, Result, joined, result_as_json, say_result, sum_of
from hpcdata.catalogue.entry import ACCESS, Entry
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.registry import ALL, Catalogue
from hpcdata.catalogue.settings import Hub, find_data_dir, find_folders, find_hub
from hpcdata.catalogue.states import State, fetch_line, folder_of, read_state, size_of
from hpcdata.catalogue.transfer.connections import MOST
from hpcdata.catalogue.transfer.fetcher import INTERVAL
from hpcdata.catalogue.unpacking.marks import missing_of
from hpcdata.catalogue.unpacking.working import unpack_all
from hpcdata.catalogue.web import Web

log = logging.getLogger(__name__)

_FETCHED = ("open", "gated")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a line of `hpcdata download` asks for."""

    names: Sequence[str]
    data_dir: str | None = None
    folders: Sequence[str] = ()
    num_at_once: int = 1
    patience_s: float = 900.0
    interval: int = INTERVAL
    num_connections: int = MOST
    update: bool = False
    ignore_errors: bool = False
    as_json: bool = False


def list_sets(names: Sequence[str], data_dir: str | None, folders: Sequence[str], *, as_json: bool) -> int:
    catalogue = Catalogue(find_folders(list(folders)))
    try:
        root, where = find_data_dir(data_dir), ""
    except UserError as error:
        root, where = None, str(error)
    entries = catalogue.choose(list(names) or [ALL])
    rows = [(entry, read_state(entry, root)) for entry in entries]
    if as_json:
        print(json.dumps([_as_json(entry, state, root) for entry, state in rows]))
        return DONE
    table = [("set", "state", "size", "splits", "licence", "what to do")]
    for entry, state in rows:
        splits = ", ".join(entry.splits) or "-"
        table.append((entry.name, state.name, size_of(entry, state), splits, entry.licence, state.remedy))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    for row in table:
        say("  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip())
    place = f" in {root}" if root else ""
    say(f"\n{units.counted(len(rows), 'set')}{place}; groups: {', '.join([ALL, *sorted(catalogue.groups)])}")
    if where:
        say(where)
    return DONE


def fetch_sets(wishes: Wishes) -> int:
    """The exit code: 0 all is here, 1 something failed, 2 a name is none, 3 something is left to do for a person."""
    if not wishes.names:
        raise UserError("name a data set, a group or all: hpcdata download --list has them")
    if wishes.num_at_once < 1:
        raise UserError(f"--n-proc is {wishes.num_at_once}, expected 1 or more")
    if wishes.num_connections < 1:
        raise UserError(f"--connections is {wishes.num_connections}, expected 1 or more")
    logs.configure()
    catalogue = Catalogue(find_folders(list(wishes.folders)))
    entries = catalogue.choose(wishes.names)
    root, hub = find_data_dir(wishes.data_dir), find_hub()
    started, parent = time.monotonic(), os.getpid()
    with StopFlag() as stop:

        def work(slots: Sequence[int]) -> list[Result]:
            is_child = os.getpid() != parent
            if not slots:
                return []

            def wait(seconds: float) -> bool:
                orphaned = is_child and os.getppid() != parent
                return orphaned or stop.wait(seconds)

            if is_child:
                logging.getLogger().setLevel(logging.ERROR)
            with Web(hub, wait=wait) as web:
                return _work(
                    entries, lambda entry, waits: _fetch(entry, root, web, hub, wishes, len(slots), wait, waits)
                )

        results = joined(forked.share_out(work, range(wishes.num_at_once)))
        was_stopped = stop.received is not None
    seconds, named = time.monotonic() - started, catalogue.asked_for(wishes.names)
    return _told(results, entries, named, wishes, seconds, was_stopped=was_stopped)


def check_sets(wishes: Wishes) -> int:
    catalogue = Catalogue(find_folders(list(wishes.folders)))
    named = catalogue.asked_for(wishes.names)
    root, code, found = find_data_dir(wishes.data_dir), DONE, dict[str, dict[str, object]]()
    with StopFlag() as stop:
        for entry in catalogue.choose(list(wishes.names) or [ALL]):
            try:
                started = time.monotonic()
                result = checking.check(
                    entry, folder_of(entry, root), num_threads=max(wishes.num_at_once, 4), wait=stop.wait
                )
            except Unfinished as error:
                found[entry.name] = {"problem": str(error)}
                if entry.name in named and not wishes.as_json:
                    say(f"{entry.name}: {error}")
                code = max(code, UNFINISHED) if entry.name in named and code != FAILED else code
                continue
            found[entry.name] = {"files": result.num_files, "bytes": result.num_bytes, "faults": result.faults}
            if result.faults:
                code = FAILED
            if not wishes.as_json:
                _say_findings(entry, result, time.monotonic() - started)
    if wishes.as_json:
        print(json.dumps(found))
    return code


def _say_findings(entry: Entry, result: checking.Findings, seconds: float) -> None:
    for path, fault in sorted(result.faults.items()):
        say(f"{entry.name}: {path}: {fault}")
    rate = units.size(result.num_bytes / max(seconds, 1e-9))
    good = result.num_files - len(result.faults)
    say(f"{entry.name}: {good} of {units.counted(result.num_files, 'file')} right, {rate}/s read")
    if result.faults:
        say(f"to fetch the others: hpcdata download {quoted(entry.name)}")


def _work(entries: Sequence[Entry], fetch: Callable[[Entry, bool], Result]) -> list[Result]:
    """Every set once without waiting for other processes, then what they were at: so all of them have work."""
    results = {entry.name: fetch(entry, False) for entry in entries}
    for entry in entries:
        former = results[entry.name]
        if former.account.is_waiting:
            latter = fetch(entry, True)
            latter.account = sum_of(former.account, latter.account)
            latter.left_out = former.left_out + latter.left_out
            results[entry.name] = latter
    return list(results.values())


def _fetch(
    entry: Entry,
    root: Path,
    web: Web,
    hub: Hub,
    wishes: Wishes,
    num_threads: int,
    wait: Callable[[float], bool],
    waits: bool,
) -> Result:
    folder = folder_of(entry, root)
    try:
        if wait(0):
            raise Fault("busy", "stopped", "the process is to stop")
        if entry.access == "manual":
            return Result(entry.name, placing.take_placed(entry, folder, wait, anew=wishes.update))
        if entry.access not in _FETCHED:
            return Result(entry.name, problem=f"{entry.access}: {entry.note or ACCESS[entry.access]}", code=UNFINISHED)
        options = Options(
            num_threads=num_threads,
            patience_s=wishes.patience_s,
            interval=wishes.interval,
            connections=wishes.num_connections * num_threads // wishes.num_at_once,
            anew=wishes.update and not waits,
            waits=waits,
        )
        account = fetching.fetch_set(entry, folder, web, hub, options, wait)
        if entry.unpack and not (account.failed or account.is_stopped or account.is_waiting):
            done = unpack_all(entry, folder, wait, waits=waits)
            account.unpacked = len(done.archives)
            if done.problems:
                return Result(entry.name, account, "; ".join(done.problems), FAILED)
            account.is_waiting = not waits and bool(missing_of(entry, folder))
            return Result(entry.name, account, left_out=done.left_out)
        return Result(entry.name, account, pictures=_line_for_pictures(entry, folder, account))
    except Fault as fault:
        if fault.reason == "stopped":
            return Result(entry.name, Account(is_stopped=True))
        return Result(entry.name, problem=str(fault), code=UNFINISHED if fault.kind == "refused" else FAILED)
    except Unfinished as error:
        return Result(entry.name, problem=str(error), code=UNFINISHED)
    except (UserError, OSError) as error:
        code = FAILED if isinstance(error, Failed | OSError) else UNFINISHED
        return Result(entry.name, problem=told(error), code=code)


def _line_for_pictures(entry: Entry, folder: Path, account: Account) -> str:
    is_open = account.failed or account.is_stopped or account.is_waiting
    if is_open or not entry.urls or (folder / entry.urls[0].folder / "dataset").is_dir():
        return ""
    return fetch_line(entry, folder)


def _told(
    results: list[Result], entries: list[Entry], named: set[str], wishes: Wishes, seconds: float, *, was_stopped: bool
) -> int:
    """named: themselves, and not as one of a group."""
    by_name = {entry.name: entry for entry in entries}
    code = DONE
    for result in results:
        own = result.code
        if result.account.failed:
            own = FAILED
        elif own == UNFINISHED and result.name not in named and by_name[result.name].access not in ("open",):
            own = DONE  # in a group, what a person has to do is said, and is no failure
        code = FAILED if FAILED in (code, own) else max(code, own)
    if wishes.as_json:
        print(json.dumps([result_as_json(result) for result in results]))
    else:
        for result in results:
            say_result(result)
        num_bytes = sum(result.account.num_bytes for result in results)
        say(f"{units.size(num_bytes)} received in {units.duration(seconds)}")
    if was_stopped:
        complain("stopped: type the same line again, and it goes on where it was")
        return UNFINISHED
    return DONE if wishes.ignore_errors else code


def _as_json(entry: Entry, state: State, root: Path | None) -> dict[str, object]:
    return {
        "name": entry.name,
        "names": list(entry.names()),
        "groups": list(entry.groups),
        "state": state.name,
        "what_to_do": state.remedy,
        "licence": entry.licence,
        "splits": list(entry.splits),
        "folder": None if root is None else str(folder_of(entry, root)),
        "bytes": state.num_bytes or entry.size,
        "unchecked": list(entry.unchecked),
        "note": entry.note,
    }

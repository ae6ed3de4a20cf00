"""Retrying rejects: encodes them again, and adds what succeeds as a new part; committed shards stay as they are.

    python -m hpcdata.rejects OUT --retry

A sample is encoded in its own batch, with the neighbours that were written, so what a retry adds is what the run
would have written had the sample been good. Only successes are stored; whatever fails stays rejected as it was. A
retry that is killed leaves an unpublished folder, which the next one removes; what it had published stays.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.errors import Unfinished, UserError
from hpcdata.base.version import code_version, library_versions
from hpcdata.history.ledger import Ledger
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan, load_runtime
from hpcdata.runs.rejects import retry_header
from hpcdata.samples import Reason
from hpcdata.shards.made import Made
from hpcdata.shards.recovered import Recovered, read_recovered, retry_number
from hpcdata.shards.reject_ledger import DUPLICATE, RejectRow, read_rejects
from hpcdata.shards.shard import make_folders
from hpcdata.shards.writing import RetryWriter
from hpcdata.work.remaking import Remaker

log = logging.getLogger(__name__)

CLAIM_TIMEOUT_S = 120.0


@dataclasses.dataclass(kw_only=True)
class RetryResult:
    tried: int = 0
    recovered: Counter[str] = dataclasses.field(default_factory=Counter)
    """By the reason for which they were rejected before."""
    still_rejected: Counter[str] = dataclasses.field(default_factory=Counter)
    """By today's reason."""
    renamed: int = 0
    """Of which there is another sample now where they were (with --accept_changed)."""
    parts: list[str] = dataclasses.field(default_factory=list)
    shards_sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of parts -> of their shard.json."""
    problems: list[str] = dataclasses.field(default_factory=list)
    """Inputs that could not be read."""


def retry(output_dir: Path | str, *, reason: str | None = None, accept_changed: bool = False) -> RetryResult:
    """Encodes rejects again (all but `crash`, or those of one reason) and publishes what succeeds.

    Raises UserError when the run's shards are gone, or another process is combining or retrying.
    """
    plan, paths = load_plan(output_dir), RunPaths(Path(output_dir).absolute())
    runtime = load_runtime(output_dir)
    attempt = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    owner = Owner.of_this_process(f"retry-{os.getpid()}-{time.time_ns()}")
    with Claims(paths.claims, owner, timeout_s=CLAIM_TIMEOUT_S) as claims:
        if not claims.try_claim("combine"):
            raise Unfinished(f"another process is combining or retrying {paths.root}: wait for it, then run this again")
        make_folders(paths.shards)
        for left_over in (*paths.shards.glob("tmp_retry-*"), *paths.shards.glob(f"{files.TRASH}tmp_retry-*")):
            files.remove_folder(left_over)
        with Remaker(plan, paths, runtime, accept_changed=accept_changed, rejects_unreadable=True) as remaker:
            work = _Retry(plan, paths, remaker, attempt, lambda row: is_wanted(row, reason))
            result = work.run()
        _note(paths, attempt, remaker, result)
    return result


_ONLY_IF_NAMED = (DUPLICATE, Reason.CRASH, Reason.URL_GONE, Reason.URL_REFUSED, Reason.SHA256_DIFFERS)


def is_wanted(row: RejectRow, reason: str | None) -> bool:
    """Duplicates are only meant when they are named; so are `crash`es, which may take the process with them, and URLs
    whose hosts have said that it is for good.
    """
    return row.reason == reason if reason else row.reason not in _ONLY_IF_NAMED


def _is_of(key: str, row: RejectRow) -> bool:
    """Whether it is the sample that was rejected; where its input could not be read, only its place is known."""
    return key == row.key or row.reason in (Reason.CHANGED_INPUT, Reason.UNREADABLE_FILE)


class _Retry:
    def __init__(
        self, plan: Plan, paths: RunPaths, remaker: Remaker, attempt: str, wanted: Callable[[RejectRow], bool]
    ) -> None:
        self._plan, self._paths, self._remaker, self._attempt = plan, paths, remaker, attempt
        self._wanted = wanted
        self._result = RetryResult()
        retries = paths.list_retries()
        self._recovered: dict[int, Recovered] = read_recovered(retries.values())
        self._number = max(map(retry_number, retries), default=0)
        self._part: RetryWriter | None = None

    def run(self) -> RetryResult:
        try:
            for spec in self._plan.shards():
                if folder := _shard_folder(self._paths, spec):
                    self._retry_shard(spec, folder)
                if self._part and self._part.num_written >= self._plan.config.data.shard_size:
                    self._publish()
            self._publish()
        finally:
            if self._part:
                self._part.discard()
        return self._result

    def _retry_shard(self, spec: ShardSpec, folder: Path) -> None:
        open_rows = [row for row in read_rejects(folder) if row.index not in self._recovered]
        rows = {row.index: row for row in open_rows if self._wanted(row)}
        if not rows:
            return
        self._result.tried += len(rows)
        rejected = {row.index for row in open_rows}
        left_out = rejected - rows.keys()
        batches = {self._batch_of(spec, index) for index in rows}
        alone = self._remaker.device == "none"  # what becomes of a sample depends on no other, and may cost a request
        taking_part = {
            number: self._range(spec, number) & rows.keys() if alone else self._range(spec, number) - left_out
            for number in batches
        }
        for made in self._made(spec, taking_part, rejected):
            good = {index: key for index, key in made.written() if index in rows}
            same = {index for index, key in good.items() if _is_of(key, rows[index])}
            self._result.renamed += len(good) - len(same)
            self._result.still_rejected.update(row.reason for row in made.rejects if row.index in rows)
            if same:
                self._open_part().take_back(made.only(same), [rows[index] for index in good if index in same])

    def _made(self, spec: ShardSpec, taking_part: Mapping[int, frozenset[int]], rejected: Set[int]) -> Iterator[Made]:
        """The batches of a shard, up to the first that cannot be read."""
        batches = iter(self._remaker.batches(spec, taking_part, rejected))
        while True:
            try:
                _, made = next(batches)
            except StopIteration:
                return
            except (UserError, OSError) as error:
                log.error("shard %s: %s", spec.name, error)
                if str(error) not in self._result.problems:
                    self._result.problems.append(str(error))
                return
            yield made

    def _batch_of(self, spec: ShardSpec, index: int) -> int:
        return (index - spec.source_index - spec.first) // self._plan.batch_size

    def _range(self, spec: ShardSpec, number: int) -> frozenset[int]:
        """Plan indices of a batch."""
        return frozenset(batch_range(self._plan, spec, number))

    def _open_part(self) -> RetryWriter:
        if self._part is None:
            self._number += 1
            self._part = RetryWriter(self._paths.shards, retry_header(self._plan, self._number), self._attempt)
            self._part.start()
        return self._part

    def _publish(self) -> None:
        if self._part is None:
            return
        part = self._part
        sha256 = part.seal()
        if not part.commit():
            raise UserError(f"{part.header.name} was published by another process: run this again")
        self._part = None
        self._result.parts.append(part.header.name)
        self._result.shards_sha256[part.header.name] = sha256
        self._result.recovered.update(part.reasons)


def batch_range(plan: Plan, spec: ShardSpec, number: int) -> range:
    """Plan indices of the `number`-th batch of a shard."""
    size, base = plan.batch_size, spec.source_index + spec.first
    return range(base + number * size, base + min((number + 1) * size, spec.count))


def _shard_folder(paths: RunPaths, spec: ShardSpec) -> Path | None:
    if folder := paths.find_shard(spec.name):
        return folder
    dataset = paths.complete_dataset()
    if dataset is None:
        return None  # not committed yet: its rejects are not known
    if not (dataset / "parts" / spec.name).exists():
        raise UserError(f"the shards of {paths.root} are gone, and {dataset} is compact: nothing can be added to it")
    return dataset / "parts" / spec.name


def _note(paths: RunPaths, attempt: str, remaker: Remaker, result: RetryResult) -> None:
    ledger = Ledger(paths.ledger, attempt)
    try:
        ledger.write(
            "retry",
            version=code_version(),
            libraries=library_versions(),
            device=remaker.device,
            parts=result.parts,
            shards_sha256=result.shards_sha256,
            recovered=dict(result.recovered),
            changed_inputs=sorted(remaker.changed_inputs),
        )
    except OSError as error:  # what is published is published
        log.warning("the retry is done, but %s cannot be written: %s", ledger.path, error.strerror)
        ledger.path.unlink(missing_ok=True)
    finally:
        ledger.close()

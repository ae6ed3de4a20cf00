"""Retrying rejects: encodes them again, and adds what succeeds as a new part; committed shards stay as they are.

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
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcdata.base import digest, files
from hpcdata.base.errors import UserError
from hpcdata.base.version import code_version, library_versions
from hpcdata.run.claims import Claims, Owner
from hpcdata.run.ledger import Ledger
from hpcdata.run.paths import RunPaths
from hpcdata.run.plan import Plan, ShardSpec, load_plan, load_runtime
from hpcdata.run.rejects import retry_header
from hpcdata.samples import Example, Reason
from hpcdata.shards import writing as store
from hpcdata.shards.columns import TABLES, columns
from hpcdata.shards.counts import Counts, Sizes
from hpcdata.shards.recovered import RECOVERED, Recovered, read_recovered, retry_number, to_line
from hpcdata.shards.rejects import DUPLICATE, REJECTS, RejectRow, read_rejects
from hpcdata.shards.shard import ShardHeader, make_folders
from hpcdata.shards.tables import EncodedBatch, to_columns
from hpcdata.shards.writing import AppendFile
from hpcdata.work.reencode import Reencoder

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
            raise UserError(f"another process is combining or retrying {paths.root}: wait for it, then run this again")
        make_folders(paths.shards)
        for left_over in (*paths.shards.glob("tmp_retry-*"), *paths.shards.glob(f"{files.TRASH}tmp_retry-*")):
            files.remove_folder(left_over)
        with Reencoder(plan, paths, runtime, accept_changed=accept_changed) as encoder:
            work = _Retry(plan, paths, encoder, attempt, lambda row: is_wanted(row, reason))
            result = work.run()
        _note(paths, attempt, encoder, result)
    return result


def is_wanted(row: RejectRow, reason: str | None) -> bool:
    """Duplicates are only meant when they are named; so are `crash`es, which may take the process with them."""
    return row.reason == reason if reason else row.reason not in (DUPLICATE, Reason.CRASH)


def _is_of(example: Example, row: RejectRow) -> bool:
    """Whether it is the sample that was rejected; where its input could not be read, only its place is known."""
    return example.key == row.key or row.reason == Reason.CHANGED_INPUT


class _Retry:
    def __init__(
        self, plan: Plan, paths: RunPaths, encoder: Reencoder, attempt: str, wanted: Callable[[RejectRow], bool]
    ) -> None:
        self._plan, self._paths, self._encoder, self._attempt = plan, paths, encoder, attempt
        self._wanted = wanted
        self._result = RetryResult()
        retries = paths.list_retries()
        self._recovered: dict[int, Recovered] = read_recovered(retries.values())
        self._number = max(map(retry_number, retries), default=0)
        self._part: _Part | None = None

    def run(self) -> RetryResult:
        try:
            for spec in self._plan.shards():
                if folder := _shard_folder(self._paths, spec):
                    self._retry_shard(spec, folder)
                if self._part and self._part.num_samples >= self._plan.config.data.shard_size:
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
        left_out = {row.index for row in open_rows} - rows.keys()
        batches = {self._batch_of(spec, index) for index in rows}
        taking_part = {number: self._range(spec, number) - left_out for number in batches}
        try:
            for records, encoded in self._encoder.batches(spec, taking_part):
                good = [example for example in encoded.examples if example.index in rows]
                same = [example for example in good if _is_of(example, rows[example.index])]
                self._result.renamed += len(good) - len(same)
                failed = [row for row in encoded.rejects if row.index in rows]
                self._result.still_rejected.update(row.reason for row in failed)
                if same:
                    wanted = {example.index for example in same}
                    taken = [record for record in records if spec.source_index + record.position in wanted]
                    truncated = self._encoder.num_truncated(spec, taken)
                    self._open_part().append(same, [rows[example.index] for example in same], truncated)
        except (UserError, OSError) as error:
            log.error("shard %s: %s", spec.name, error)
            if str(error) not in self._result.problems:
                self._result.problems.append(str(error))

    def _batch_of(self, spec: ShardSpec, index: int) -> int:
        return (index - spec.source_index - spec.first) // self._plan.batch_size

    def _range(self, spec: ShardSpec, number: int) -> frozenset[int]:
        """Plan indices of a batch."""
        return frozenset(batch_range(self._plan, spec, number))

    def _open_part(self) -> _Part:
        if self._part is None:
            self._number += 1
            self._part = _Part(self._paths.shards, retry_header(self._plan, self._number), self._attempt)
        return self._part

    def _publish(self) -> None:
        if self._part is None:
            return
        part, self._part = self._part, None
        part.commit()
        self._result.parts.append(part.header.name)
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


class _Part:
    """A retry part in the making. See `store.ShardWriter`: the same files, with another account."""

    def __init__(self, shards: Path, header: ShardHeader, attempt: str) -> None:
        self.header = header
        self.reasons: Counter[str] = Counter()
        self._shards, self._folder = shards, shards / f"tmp_{header.name}.{attempt}"
        self._sizes, self._counts, self._content = Sizes(), Counts(), 0
        for table in TABLES:
            (self._folder / table).mkdir(parents=True)
        names = [*(column.path for column in columns(header.id_dtype)), REJECTS, RECOVERED]
        self._files = {path: AppendFile(self._folder / path) for path in names}

    @property
    def num_samples(self) -> int:
        return self._sizes.samples

    def append(self, examples: Sequence[Example], rows: Sequence[RejectRow], num_truncated: int) -> None:
        batch = EncodedBatch(examples=examples, truncated_texts=num_truncated)
        columns_, self._sizes, content = to_columns(batch.rows(), self.header.id_dtype, self._sizes)
        for path, values in columns_.items():
            self._files[path].append(values)
        for row in rows:
            self._files[RECOVERED].append(to_line(row, retry_number(self.header.name)))
        self._counts = self._counts + batch.counts()
        self._content = digest.add(self._content, content)
        self.reasons.update(row.reason for row in rows)

    def commit(self) -> None:
        for file in self._files.values():
            file.flush()
        self._close()
        taken_back = Counter({reason: -number for reason, number in self.reasons.items()})
        counts = dataclasses.replace(self._counts, inputs=0, rejected=taken_back)
        known = {path: file.sha256() for path, file in self._files.items()}
        store.seal(self._folder, self.header, self._sizes, counts, digest.to_hex(self._content), known)
        if not store.publish(self._shards, self._folder, self.header.name):
            raise UserError(f"{self.header.name} was published by another process: run this again")

    def discard(self) -> None:
        self._close()
        files.remove_folder(self._folder)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()


def _note(paths: RunPaths, attempt: str, encoder: Reencoder, result: RetryResult) -> None:
    ledger = Ledger(paths.ledger, attempt)
    ledger.write(
        "retry",
        version=code_version(),
        libraries=library_versions(),
        device=encoder.device,
        parts=result.parts,
        recovered=dict(result.recovered),
        changed_inputs=sorted(encoder.changed_inputs),
    )
    ledger.close()

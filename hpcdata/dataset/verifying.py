"""Verify: reads everything back and says whether it is what was promised.

    python -m hpcdata.verify OUT

For a run: every shard of the plan is committed, every file has its sha256, every sample of the inputs is written,
rejected or a duplicate exactly once. For a dataset: the same for its parts, and the content digest of the manifest is
recomputed from the examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base import digest, sealed
from hpcdata.base.command import to_type
from hpcdata.base.digest import sha256_file
from hpcdata.config import values as configuration
from hpcdata.dataset import joined
from hpcdata.dataset.baked.record import problems_of
from hpcdata.dataset.manifest import FILE_NAME, LayoutDefaults, Manifest, part_of, planned_facts, read_manifest
from hpcdata.history import checking as history
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.runs.rejects import retry_header
from hpcdata.runs.stage import find_stage
from hpcdata.shards import shard
from hpcdata.shards.counts import Counts
from hpcdata.shards.recovered import PREFIX, RECOVERED, Recovered, read_recovered, retry_number
from hpcdata.shards.reject_ledger import DUPLICATE, read_rejects
from hpcdata.shards.shard import ShardHeader, ShardSummary


@dataclass(kw_only=True)
class Report:
    path: Path
    counts: Counts = field(default_factory=Counts)
    content_digest: int = 0
    problems: list[str] = field(default_factory=list)
    recovered: dict[int, Recovered] = field(default_factory=dict)
    """What the retry parts took back; `add_shard` removes what it finds rejected."""
    num_uncommitted: int = 0
    """Shards of the plan that are not committed."""

    @property
    def only_lacks_shards(self) -> bool:
        """Whether nothing is wrong but that shards are missing."""
        return bool(self.num_uncommitted) and len(self.problems) == 1

    def add_shard(self, folder: Path, summary: ShardSummary) -> None:
        """Checks one committed shard or part and adds it to the account."""
        self.counts = self.counts + summary.counts
        problems = []
        try:
            problems = shard.check_files(folder, summary)
            if not problems:
                found = find_stage(summary.header.stage).check(folder, summary)
                self.content_digest = digest.add(self.content_digest, found.content)
                problems = [*_check_account(folder, summary, found.written, self.recovered), *found.problems]
                if digest.to_hex(found.content) != summary.content_digest:
                    problems.append(f"its samples do not have the content digest in {shard.SHARD}")
        except (OSError, ValueError) as error:
            problems = [str(error)]
        except (LookupError, TypeError) as error:
            problems = [f"it is damaged ({type(error).__name__}: {error})"]
        self.problems += [f"{folder.name}: {problem}" for problem in problems]

    def check_recovered(self) -> None:
        """Call after the last shard: every recovered sample must have been a reject."""
        if self.recovered:
            sample = min(self.recovered)
            self.problems.append(f"retries hold {len(self.recovered)} samples that no shard rejected, first {sample}")

    def to_mapping(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "ok": not self.problems,
            "counts": self.counts.to_mapping(),
            "content_digest": digest.to_hex(self.content_digest),
            "problems": self.problems,
        }


def verify(path: Path | str) -> list[Report]:
    """Verifies a dataset, or a run with the dataset that was made of it. Raises UserError when it is neither."""
    path = Path(path)
    if (path / FILE_NAME).exists():
        return [verify_dataset(path)]
    paths = RunPaths(path)
    plan = load_plan(path)
    dataset = paths.complete_dataset()
    reports = []
    made_as = history.sealed_shards(paths)
    if dataset is None or (paths.shards.is_dir() and any(paths.shards.iterdir())):
        reports.append(_verify_run(paths, dataset, made_as))
    if dataset is not None or (paths.dataset / FILE_NAME).exists():
        report = verify_dataset(dataset or paths.dataset)
        if report.counts.inputs != plan.num_samples:
            report.problems.append(f"accounts for {report.counts.inputs} of the plan's {plan.num_samples} inputs")
        report.problems += _not_of_the_run(report.path, plan, paths)
        reports.append(report)
    written = (paths.plan, paths.runtime, paths.batch_size, paths.combined, paths.report, paths.halted)
    reports[0].problems += [problem for file in written for problem in _faults(file)]
    reports[0].problems += history.problems_of(paths, plan)
    return reports


def verify_dataset(path: Path | str) -> Report:
    manifest = read_manifest(path, even_if_changed=True)
    retries = [manifest.folder / part.path for part in manifest.parts if Path(part.path).name.startswith(PREFIX)]
    report = Report(path=manifest.folder, recovered=read_recovered(retries))
    report.problems += _faults(manifest.folder / FILE_NAME)
    for part in manifest.parts:
        folder = manifest.folder / part.path
        try:
            summary = shard.read_summary(folder)
        except (OSError, ValueError) as error:
            report.problems.append(f"{part.path}: {error}")
            continue
        if part != part_of(Path(part.path).name, summary) or summary.header.id_dtype != manifest.id_dtype:
            report.problems.append(f"{part.path}: {shard.SHARD} is not the one of the manifest")
        report.add_shard(folder, summary)
    report.check_recovered()
    try:
        _check_manifest(manifest, report)
    except (TypeError, LookupError, AttributeError) as error:
        report.problems.append(f"{FILE_NAME}: it is damaged ({type(error).__name__}: {error})")
    return report


def _verify_run(paths: RunPaths, dataset: Path | None, made_as: Mapping[str, set[str]]) -> Report:
    """Checks the shards of a run that are still in `shards/` (those moved into a dataset are checked there)."""
    plan = load_plan(paths.root)
    retries = paths.list_retries()
    report = Report(path=paths.shards, recovered=read_recovered(retries.values()))
    missing = []
    for spec in plan.shards():
        folder = paths.find_shard(spec.name)
        if folder is None:
            if dataset is None:
                missing.append(spec.name)
            continue
        _add(report, folder, plan.header(spec))
        report.problems += _not_as_made(folder, made_as.get(spec.name))
    for name, folder in retries.items():
        _add(report, folder, retry_header(plan, retry_number(name)))
        report.problems += _not_as_made(folder, made_as.get(name))
    report.problems += history.damaged_checkpoints(paths.shards)
    report.check_recovered()
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        report.num_uncommitted = len(missing)
        report.problems.append(f"{len(missing)} of {plan.num_shards} shards are not committed: {names}")
    return report


def _faults(path: Path) -> list[str]:
    """Of a file with a seal, that may not be there."""
    try:
        fault = sealed.fault_of_json(path.read_bytes(), path.name)
    except FileNotFoundError:
        return []
    return [f"{path.name}: {fault}"] if fault else []


def _not_as_made(folder: Path, sha256s: set[str] | None) -> list[str]:
    """What only the ledger knows: counts that no column tells."""
    try:
        found = sha256_file(folder / shard.SHARD)
    except FileNotFoundError:
        return []
    if not sha256s or found in sha256s:
        return []
    return [f"{folder.name}: {shard.SHARD} is not the one that the ledger tells of"]


def _add(report: Report, folder: Path, header: ShardHeader) -> None:
    try:
        summary = shard.read_summary(folder)
    except (OSError, ValueError) as error:
        report.problems.append(f"{header.name}: {error}")
        return
    if summary.header != header:
        report.problems.append(f"{header.name}: {shard.SHARD} is of another plan")
    report.add_shard(folder, summary)


def _not_of_the_run(dataset: Path, plan: Plan, paths: RunPaths) -> list[str]:
    """Where a dataset is not what the run beside it says."""
    manifest = read_manifest(dataset, even_if_changed=True)
    problems = []
    if manifest.fingerprint != plan.fingerprint or (manifest.text, manifest.image) != (plan.text, plan.image):
        problems.append(f"{FILE_NAME}: its plan, tokenizer or weights are not the run's")
    if manifest.layout != LayoutDefaults.of(plan):
        problems.append(f"{FILE_NAME}: its layout is not the run's")
    said = {**manifest.extra, "config": _with_later_keys(manifest.extra.get("config"))}
    problems += [
        f"{FILE_NAME}: its {name.replace('_', ' ')} is not the run's"
        for name, fact in planned_facts(plan).items()
        if name in manifest.extra and said[name] != fact
    ]
    try:
        held = {entry["part"] for entry in manifest.extra.get("retries", [])}
    except (TypeError, LookupError) as error:
        return [*problems, f"{FILE_NAME}: its retries are damaged ({type(error).__name__}: {error})"]
    if lacking := sorted(paths.list_retries().keys() - held):
        problems.append(f"lacks {', '.join(lacking)}: run {to_type('combine', paths.root)}")
    return problems


def _with_later_keys(config: Any) -> Any:
    """A configuration as a version wrote it, with what has been added since."""
    try:
        return configuration.to_mapping(configuration.from_mapping(config))
    except (ValueError, TypeError, AttributeError):
        return config


def _check_account(
    folder: Path, summary: ShardSummary, written: np.ndarray, recovered: dict[int, Recovered]
) -> list[str]:
    """Every input once: the indices of written and rejected samples together are the shard's range."""
    counts, header = summary.counts, summary.header
    if header.name.startswith(PREFIX):
        return _check_retry(folder, summary, written)
    rejects, reasons = [], Counter[str]()
    for row in read_rejects(folder):
        rejects.append(row.index)
        reasons[row.reason] += 1
        if row.index in recovered and recovered[row.index].reason == row.reason:
            del recovered[row.index]
    problems = []
    if len(written) != counts.written or len(rejects) != counts.rejected.total() + counts.duplicate:
        problems.append(
            f"{len(written)} samples and {len(rejects)} rejects, {shard.SHARD} says {counts.written} and "
            f"{counts.rejected.total() + counts.duplicate}"
        )
    elif reasons != counts.rejected + Counter({DUPLICATE: counts.duplicate}):
        problems.append(f"its rejects are {dict(reasons)}, {shard.SHARD} says {dict(counts.rejected)}")
    if not counts.is_balanced() or counts.inputs != header.num_inputs:
        problems.append(f"its account does not balance: {counts.to_mapping()}")
    seen = np.sort(np.concatenate([written, np.array(rejects, np.int64)]))
    in_one_range = header.source != "*"
    if len(np.unique(seen)) != len(seen) or (in_one_range and np.any(np.diff(written) <= 0)):
        problems.append("some inputs are there twice")
    if in_one_range and not np.array_equal(seen, np.arange(len(seen)) + header.first_index):
        problems.append(f"its samples are not inputs {header.first_index} and following without a hole")
    return problems


def _check_retry(folder: Path, summary: ShardSummary, written: np.ndarray) -> list[str]:
    """The account of a retry: what it wrote is what it took back."""
    taken_back = read_recovered([folder])
    reasons = Counter(row.reason for row in taken_back.values())
    problems = []
    if sorted(taken_back) != sorted(written.tolist()):
        problems.append(f"its samples are not those of {RECOVERED}")
    expected = {reason: -number for reason, number in reasons.items()}
    if summary.counts.inputs or not summary.counts.is_balanced() or dict(summary.counts.rejected) != expected:
        problems.append(f"its account does not balance: {summary.counts.to_mapping()}")
    return problems


def _check_manifest(manifest: Manifest, report: Report) -> None:
    counts = manifest.counts
    absent = counts.missing - report.counts.missing
    if counts != report.counts + Counts(inputs=absent, missing=absent):
        report.problems.append(f"{FILE_NAME}: its account is not the sum of its parts")
    if not counts.is_balanced():
        report.problems.append(f"{FILE_NAME}: its account does not balance")
    if counts.missing != sum(gap["missing"] for gap in manifest.extra.get("gaps", [])):
        report.problems.append(f"{FILE_NAME}: its gaps are not its missing inputs")
    report.problems += joined.problems_of(manifest)
    report.problems += problems_of(manifest.folder, manifest.baked, manifest.num_samples)
    recorded = None if report.problems else manifest.extra.get("shards_sha256")
    if recorded and shard.sha256_of(manifest.folder / part.path for part in manifest.parts) != recorded:
        report.problems.append(f"{FILE_NAME}: a {shard.SHARD} of its parts is not the one that was combined")
    if digest.to_hex(report.content_digest) != manifest.content_digest and not report.problems:
        report.problems.append(f"{FILE_NAME}: its content digest is not that of its examples")
    report.counts = counts

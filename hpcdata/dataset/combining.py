"""Combine: committed shards -> one dataset, `dataset/manifest.json` + `dataset/parts/`.

    python -m hpcdata.combine OUT

Shards are immutable, so combining is checking the account, hard-linking files and writing a manifest: its time and
memory depend on the number of shards, not on their bytes. `--compact` streams all parts into one contiguous one.
The dataset is built under a temporary name and renamed when it is complete and durable; killed at any moment, combine
is simply run again. Shards are removed only when the dataset that holds them is published.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base import digest, files, sealed
from hpcdata.base.command import to_type
from hpcdata.base.errors import Failed, Unfinished, UserError
from hpcdata.base.version import code_version
from hpcdata.dataset import joined
from hpcdata.dataset.baked.adding import Baking, bake
from hpcdata.dataset.manifest import FILE_NAME, LayoutDefaults, Manifest, part_of, planned_facts
from hpcdata.dataset.partlist import Parts
from hpcdata.dataset.publishing import existing, publish, recover
from hpcdata.history.ledger import read_ledgers
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan, load_runtime
from hpcdata.runs.rejects import not_rejected, retry_header
from hpcdata.runs.stage import arrange
from hpcdata.shards import shard
from hpcdata.shards.compact import compact
from hpcdata.shards.counts import Counts
from hpcdata.shards.recovered import PREFIX, read_recovered, retry_number
from hpcdata.shards.shard import ShardHeader, ShardSummary
from hpcdata.shards.writing import ShardWriter

log = logging.getLogger(__name__)

CLAIM_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class CombineOptions:
    allow_tmp: bool = False
    """Take the checkpointed beginning of unfinished shards, and record what is missing."""
    move_files: bool = False
    """Remove shards that the dataset holds, once it is published: as hard links, or as copies that were read back."""
    delete_after_combining: bool = False
    """The same, and what else the run needed, after recomputing every digest of the dataset."""
    compact: bool = False
    output_dir: str | None = None
    bake: Sequence[Baking] | None = None
    """The layouts whose rows the dataset is to have (`hpcdata.dataset.baked`); None: those that it has."""


def combine(output_dir: Path | str, options: CombineOptions) -> Manifest:
    """Makes (or finds) the dataset of a run. Raises UserError when shards are missing or something is damaged."""
    plan, paths = load_plan(output_dir), RunPaths(Path(output_dir).absolute())
    target = _target(paths, options)
    owner = Owner.of_this_process(f"combine-{os.getpid()}-{time.time_ns()}")
    with Claims(paths.claims, owner, timeout_s=CLAIM_TIMEOUT_S) as claims:
        if not claims.try_claim("combine"):
            raise Unfinished(f"another process is combining {paths.root}: wait for it, then run this again")
        manifest = _combine(plan, paths, target, options)
        _remove_shards(plan, paths, target, manifest, options)
    if options.delete_after_combining and not manifest.counts.missing:
        files.remove_folder(paths.claims)
    return manifest


def _combine(plan: Plan, paths: RunPaths, target: Path, options: CombineOptions) -> Manifest:
    recover(target)
    manifest = existing(target, plan)
    if manifest is None or _is_outdated(manifest, paths, options):
        if manifest and manifest.baked and options.bake is None:
            log.warning("%s is made again, without the rows that were baked: --bake makes them again", target)
        manifest = _build(plan, paths, target, options)
    else:
        log.info("%s holds all shards and retries already", target)
    if options.bake is not None:
        manifest = bake(manifest, options.bake)
    if not manifest.counts.missing:
        runtime = load_runtime(paths.root) if paths.runtime.exists() else plan.config
        manifest = dataclasses.replace(manifest, target=arrange(plan, runtime, target))
    dataset = target.relative_to(paths.root).as_posix() if target.is_relative_to(paths.root) else str(target)
    record = {"dataset": dataset, "complete": not manifest.counts.missing}
    files.write_atomic(paths.combined, sealed.to_json(record))
    return manifest


def _is_outdated(manifest: Manifest, paths: RunPaths, options: CombineOptions) -> bool:
    """Whether the dataset lacks shards or retries that it could hold, or should become compact."""
    held = {entry["part"] for entry in manifest.extra.get("retries", [])}
    is_lacking = bool(manifest.counts.missing) or not paths.list_retries().keys() <= held
    return is_lacking or (options.compact and not manifest.extra.get("compact"))


def _target(paths: RunPaths, options: CombineOptions) -> Path:
    """Where the dataset goes: as asked, else where it is, else in the run."""
    target = Path(options.output_dir).absolute() if options.output_dir else paths.complete_dataset() or paths.dataset
    if target == paths.root or target.is_relative_to(paths.shards) or paths.shards.is_relative_to(target):
        raise UserError(f"--output_dir={target} is where the run keeps its shards: choose another folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir={target} cannot be made: {error.strerror}") from None
    return target


def _require_complete(plan: Plan, paths: RunPaths, target: Path) -> None:
    committed = paths.list_committed()
    missing = [spec.name for spec in plan.shards() if spec.name not in committed]
    missing = [name for name in missing if not (target / "parts" / name / shard.SHARD).exists()]
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise Unfinished(
            f"{len(missing)} of {plan.num_shards} shards of {paths.root} are not committed ({names}): "
            f"{to_type('resume', paths.root)} finishes them, {to_type('combine', paths.root, '--allow-tmp')} takes "
            "what is there"
        )


def _build(plan: Plan, paths: RunPaths, target: Path, options: CombineOptions) -> Manifest:
    if not options.allow_tmp:
        _require_complete(plan, paths, target)
    for old in target.parent.glob(f".{target.name}.building.*"):  # of killed attempts: we hold the claim
        files.remove_folder(old)
    building = target.with_name(f".{target.name}.building.{secrets.token_hex(4)}")
    with files.removed_on_error(building):
        (building / "parts").mkdir(parents=True)
        manifest = _fill(plan, paths, target, options, building)
        publish(building, target)
    return dataclasses.replace(manifest, folder=target)


def _fill(plan: Plan, paths: RunPaths, target: Path, options: CombineOptions, building: Path) -> Manifest:
    found = [_add_shard(plan, paths, target, spec, building / "parts") for spec in plan.shards()]
    parts = [part for part in found if part is not None]
    gaps = list(_gaps(plan, parts))
    missing = sum(gap["missing"] for gap in gaps)
    retries = _add_retries(plan, paths, [name for name, _ in parts], building / "parts")
    parts += [(entry.name, entry.summary) for entry in retries]
    counts = sum((summary.counts for _, summary in parts), Counts())
    absent = missing - counts.missing
    counts = counts + Counts(inputs=absent, missing=absent)
    if options.compact:
        parts = [compact(building / "parts", parts, plan.fingerprint, plan.id_dtype, plan.contents)]
    manifest = _manifest(plan, paths, parts, counts, gaps, retries, building / "parts", is_compact=options.compact)
    if joined.pays(building, manifest):
        manifest = joined.join(building, manifest)
    for folder in (building / "parts", building):
        files.sync_folder(folder)
    files.write_atomic(building / FILE_NAME, manifest.to_json())
    _require_parts(building, manifest)
    return manifest


def _add_shard(
    plan: Plan, paths: RunPaths, target: Path, spec: ShardSpec, parts: Path
) -> tuple[str, ShardSummary] | None:
    """Adds what there is of a shard to the new dataset: committed, or the fullest intact checkpoint, or nothing."""
    header = plan.header(spec)
    for _ in range(2):  # a checkpoint may be committed while we look
        for folder in (paths.shards / spec.name, paths.parts / spec.name, target / "parts" / spec.name):
            if (folder / shard.SHARD).exists():
                return _link_shard(header, folder, parts)
        found = [(shard.valid_progress(old, header), old) for old in shard.list_attempts(paths.shards, spec.name)]
        valid = [(progress, old) for progress, old in found if progress is not None]
        for progress, old in sorted(valid, key=lambda pair: -pair[0].samples_read):
            writer = ShardWriter(parts, header, "partial")
            try:
                writer.adopt(old, progress)
                return f"tmp_{header.name}.partial", writer.seal_partial()
            except (OSError, ValueError, KeyError) as error:
                log.warning("shard %s: checkpoint %s is not usable: %s", spec.name, old.name, error)
                writer.discard()
    return None


@dataclass(frozen=True, kw_only=True)
class _RetryPart:
    name: str
    summary: ShardSummary

    def to_mapping(self) -> dict[str, Any]:
        rejected = self.summary.counts.rejected
        return {"part": self.name, "recovered": {reason: -number for reason, number in sorted(rejected.items())}}


def _add_retries(plan: Plan, paths: RunPaths, names: Sequence[str], parts: Path) -> list[_RetryPart]:
    """Adds what retries have written, once it is certain that the shards reject it."""
    found = paths.list_retries()
    strangers = not_rejected(read_recovered(found.values()), plan, {name: parts / name for name in names})
    if strangers:
        raise UserError(
            f"{', '.join(found)} hold sample {strangers[0]}, which its shard does not reject (any longer): remove "
            f"{paths.shards}/{PREFIX}* and retry again with {to_type('rejects', paths.root, '--retry')}"
        )
    headers = {name: retry_header(plan, retry_number(name)) for name in found}
    return [_RetryPart(name=name, summary=_link_shard(headers[name], found[name], parts)[1]) for name in found]


def _link_shard(header: ShardHeader, folder: Path, parts: Path) -> tuple[str, ShardSummary]:
    repair = f"remove {folder} and submit the same launch line again"
    try:
        summary = shard.read_summary(folder)
    except (OSError, ValueError) as error:
        raise Failed(f"shard {header.name} is damaged ({error}): {repair}") from None
    problems = [] if summary.header == header else [f"{shard.SHARD} is of another plan"]
    problems += shard.check_sizes(folder, summary)
    if problems:
        raise Failed(f"shard {header.name} is damaged: {'; '.join(problems[:3])}: {repair}")
    files.link_folder(folder, parts / header.name)
    return header.name, summary


def _require_parts(folder: Path, manifest: Manifest) -> None:
    """Looks at the names and sizes of every file once more, before something is published or removed."""
    for part in manifest.parts:
        path = folder / part.path
        try:
            problems = shard.check_sizes(path, shard.read_summary(path))
        except (OSError, ValueError) as error:
            problems = [str(error)]
        if problems:
            raise Failed(f"{path} is damaged: {'; '.join(problems[:3])}: nothing was removed; run combine again")


def _gaps(plan: Plan, parts: Sequence[tuple[str, ShardSummary]]) -> Iterator[dict[str, Any]]:
    """What --allow_tmp leaves out."""
    held = {summary.header.name: summary.counts.missing for _, summary in parts}
    for spec in plan.shards():
        missing = held.get(spec.name, spec.count)
        if missing:
            first = spec.source_index + spec.first + spec.count - missing
            yield {"shard": spec.name, "first_missing": first, "missing": missing}


def _manifest(
    plan: Plan,
    paths: RunPaths,
    parts: Sequence[tuple[str, ShardSummary]],
    counts: Counts,
    gaps: list[dict[str, Any]],
    retries: Sequence[_RetryPart],
    folder: Path,
    *,
    is_compact: bool,
) -> Manifest:
    content = digest.add(*(digest.from_hex(summary.content_digest) for _, summary in parts))
    return Manifest(
        fingerprint=plan.fingerprint,
        id_dtype=plan.id_dtype,
        parts=Parts.of(part_of(name, summary) for name, summary in parts),
        counts=counts,
        content_digest=digest.to_hex(content),
        text=plan.text,
        image=plan.image,
        layout=LayoutDefaults.of(plan),
        extra={
            **planned_facts(plan),
            "compact": is_compact,
            "gaps": gaps,
            "retries": [entry.to_mapping() for entry in retries],
            "shards_sha256": shard.sha256_of(folder / name for name, _ in parts),
            "code_version": code_version(),
            **_environment(paths),
        },
    )


def _environment(paths: RunPaths) -> dict[str, Any]:
    """What the processes that encoded ran on, from their ledgers: several values mean that it was not one."""
    devices, versions, libraries = set[str](), set[str](), set[str]()
    for _, events in read_ledgers(paths.ledger):
        for event in events:
            if event.get("event") in ("claim", "retry") and "device" in event:
                devices.add(event["device"])
            if event.get("event") in ("start", "retry") and "version" in event:
                versions.add(event["version"])
                libraries.add(json.dumps(event.get("libraries", {}), sort_keys=True))
    found = [json.loads(item) for item in sorted(libraries)]
    return {"devices": sorted(devices), "encoder_versions": sorted(versions), "libraries": [x for x in found if x]}


def _remove_shards(plan: Plan, paths: RunPaths, target: Path, manifest: Manifest, options: CombineOptions) -> None:
    if not (options.move_files or options.delete_after_combining) or not paths.shards.exists():
        return
    complete = not manifest.counts.missing
    if not complete and (manifest.extra.get("compact") or target != paths.dataset):
        log.warning("the run is not finished: its shards stay until a complete dataset holds them")
        return
    _require_parts(target, manifest)
    if options.delete_after_combining or not _shares_files(paths, target, manifest):
        _require_verified(target)
    held = {Path(part.path).name for part in manifest.parts}
    if complete:
        held |= {spec.name for spec in plan.shards()} | {entry["part"] for entry in manifest.extra.get("retries", [])}
    for folder in sorted(paths.shards.iterdir()):
        name = folder.name.removeprefix(files.TRASH).removeprefix("tmp_").split(".", 1)[0]
        if folder.name in held or (complete and name in held):
            files.remove_folder(folder)
    with contextlib.suppress(OSError):
        paths.shards.rmdir()  # unless something is in it that is not ours


def _shares_files(paths: RunPaths, target: Path, manifest: Manifest) -> bool:
    """Whether what is to be removed has the same inodes in the dataset; copies are to be read back first."""
    for part in manifest.parts:
        name = Path(part.path).name
        old, new = paths.shards / name / shard.SHARD, target / part.path / shard.SHARD
        if old.exists() and not old.samefile(new):
            return False
    return not manifest.extra.get("compact")


def _require_verified(target: Path) -> None:
    from hpcdata.dataset.verifying import verify_dataset

    report = verify_dataset(target)
    if report.problems:
        raise UserError(f"{target} does not verify, so nothing was deleted: {'; '.join(report.problems[:3])}")

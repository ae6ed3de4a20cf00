"""A proof by sample: encodes drawn samples again from the raw inputs and compares ids, codes and keys exactly.

    python -m hpcdata.verify --prove 64 OUT [--seed S]

`verify` shows that the files are what was written; this shows that what was written is what the inputs say. Each
sample is encoded within its own batch, as in the run. A device of another kind may give a few other codes.
"""

from __future__ import annotations

import dataclasses
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan, load_runtime
from hpcdata.runs.stage import find_stage
from hpcdata.shards import shard
from hpcdata.shards.made import Made
from hpcdata.shards.recovered import PREFIX, Recovered, read_recovered
from hpcdata.shards.reject_ledger import read_rejects
from hpcdata.shards.stored import read_columns, stored_key
from hpcdata.work.remaking import Remaker
from hpcdata.work.retry import batch_range


@dataclasses.dataclass(kw_only=True)
class Proof:
    seed: int
    num_written: int
    drawn: int = 0
    equal: int = 0
    encoded: int = 0
    """Samples that were encoded, neighbours included."""
    device: str = "none"
    differences: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draw:
    """A stored sample; `retry` is 0 for one that the run itself wrote."""

    index: int
    folder: Path
    row: int
    retry: int


def prove(output_dir: Path | str, num_samples: int, seed: int | None, *, accept_changed: bool = False) -> Proof:
    """Raises UserError when there is no run, nothing is written yet, or the tokenizers are not the plan's."""
    plan, paths = load_plan(output_dir), RunPaths(Path(output_dir).absolute())
    folders = _folders(plan, paths)
    seed = secrets.randbits(32) if seed is None else seed
    proof = Proof(seed=seed, num_written=sum(summary.sizes["samples"] for _, summary in folders))
    if num_samples < 1 or not proof.num_written:
        raise UserError(f"--prove {num_samples} of {proof.num_written} written samples: there is nothing to prove")
    recovered = read_recovered(folder for folder, _ in folders)
    draws = list(_draw(folders, recovered, num_samples, seed))
    proof.drawn = len(draws)
    rejected = _rejected(plan, draws, folders, recovered)
    with Remaker(plan, paths, load_runtime(output_dir), accept_changed=accept_changed) as remaker:
        proof.device = remaker.device
        for (name, retry), group in _grouped(plan, draws).items():
            spec = plan.shard_of(group[0].index)
            left_out = {index for index, written_by in rejected.get(name, {}).items() if written_by > retry}
            _prove_shard(plan, spec, group, left_out, remaker, proof)
    return proof


def _folders(plan: Plan, paths: RunPaths) -> list[tuple[Path, shard.ShardSummary]]:
    """Everything that holds samples: shards and retries, or the compact part when those are gone."""
    dataset = paths.complete_dataset()
    found = []
    for spec in plan.shards():
        folder = paths.find_shard(spec.name) or (dataset / "parts" / spec.name if dataset else None)
        if folder and folder.exists():
            found.append(folder)
        elif dataset:
            found = [dataset / "parts" / "compact"]
            break
    found += [] if found and found[0].name == "compact" else paths.list_retries().values()
    try:
        return [(folder, shard.read_summary(folder)) for folder in found]
    except (OSError, ValueError) as error:
        raise UserError(f"{error}: run {to_type('verify', paths.root)}") from None


def _draw(
    folders: Sequence[tuple[Path, shard.ShardSummary]], recovered: Mapping[int, Recovered], number: int, seed: int
) -> Iterator[_Draw]:
    """`number` different stored samples (or all there are), each equally likely."""
    ends = np.cumsum([summary.sizes["samples"] for _, summary in folders])
    rows = random.Random(seed).sample(range(int(ends[-1])), min(number, int(ends[-1])))
    for row in sorted(rows):
        which = int(np.searchsorted(ends, row, side="right"))
        folder, summary = folders[which]
        local = row - int(ends[which - 1] if which else 0)
        index = int(read_columns(folder, summary.header.schema, summary.sizes)["samples/index.memmap"][local])
        is_first = folder.name != "compact" and not folder.name.startswith(PREFIX)
        retry = 0 if is_first or index not in recovered else recovered[index].retry
        yield _Draw(index=index, folder=folder, row=local, retry=retry)


def _rejected(
    plan: Plan,
    draws: Sequence[_Draw],
    folders: Sequence[tuple[Path, shard.ShardSummary]],
    recovered: Mapping[int, Recovered],
) -> dict[str, dict[int, float]]:
    """Shard -> samples of it that the run itself did not write -> the retry that did (or infinity)."""
    names = {plan.shard_of(draw.index).name for draw in draws}
    found: dict[str, dict[int, float]] = {name: {} for name in names}
    for index, row in recovered.items():
        if (name := plan.shard_of(index).name) in names:
            found[name][index] = row.retry
    for folder, _ in folders:
        if folder.name in names or folder.name == "compact":
            for reject in read_rejects(folder):
                if (name := plan.shard_of(reject.index).name) in names:
                    found[name].setdefault(reject.index, float("inf"))
    return found


def _grouped(plan: Plan, draws: Sequence[_Draw]) -> dict[tuple[str, int], list[_Draw]]:
    groups: dict[tuple[str, int], list[_Draw]] = {}
    for draw in draws:
        groups.setdefault((plan.shard_of(draw.index).name, draw.retry), []).append(draw)
    return groups


def _prove_shard(
    plan: Plan, spec: ShardSpec, draws: Sequence[_Draw], left_out: set[int], remaker: Remaker, proof: Proof
) -> None:
    size, base = plan.batch_size, spec.source_index + spec.first
    taking_part = {
        number: frozenset(batch_range(plan, spec, number)) - left_out
        for number in {(draw.index - base) // size for draw in draws}
    }
    stage = find_stage(plan.config.stage)
    made_of: dict[int, Made] = {}
    reasons: dict[int, str] = {}
    wanted = {draw.index: draw for draw in draws}
    try:
        for records, made in remaker.batches(spec, taking_part):
            proof.encoded += len(records)
            made_of |= {index: made for index, _ in made.written() if index in wanted}
            reasons |= {row.index: f"{row.reason}: {row.message}" for row in made.rejects}
    except (UserError, OSError) as error:
        proof.differences.append(f"shard {spec.name}: {error}")
        return
    for draw in draws:
        if draw.index in made_of:
            difference = stage.compare(made_of[draw.index], draw.index, draw.folder, draw.row)
        else:
            difference = f"is rejected now ({reasons.get(draw.index, 'not read')})"
        if difference:
            key = stored_key(draw.folder, draw.row)
            proof.differences.append(f"{key} (sample {draw.index}, {draw.folder.name}): {difference}")
        else:
            proof.equal += 1

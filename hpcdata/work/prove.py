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
from hpcdata.run.paths import RunPaths
from hpcdata.run.plan import Plan, ShardSpec, load_plan, load_runtime
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Example, Kind, Role, Span
from hpcdata.shards import shard
from hpcdata.shards.recovered import PREFIX, Recovered, read_recovered
from hpcdata.shards.rejects import read_rejects
from hpcdata.shards.tables import read_columns
from hpcdata.work.reencode import Reencoder
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
    proof = Proof(seed=seed, num_written=sum(summary.sizes.samples for _, summary in folders))
    if num_samples < 1 or not proof.num_written:
        raise UserError(f"--prove {num_samples} of {proof.num_written} written samples: there is nothing to prove")
    recovered = read_recovered(folder for folder, _ in folders)
    draws = list(_draw(folders, recovered, num_samples, seed))
    proof.drawn = len(draws)
    rejected = _rejected(plan, draws, folders, recovered)
    with Reencoder(plan, paths, load_runtime(output_dir), accept_changed=accept_changed) as encoder:
        proof.device = encoder.device
        for (name, retry), group in _grouped(plan, draws).items():
            spec = plan.shard_of(group[0].index)
            left_out = {index for index, written_by in rejected.get(name, {}).items() if written_by > retry}
            _prove_shard(plan, spec, group, left_out, encoder, proof)
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
    ends = np.cumsum([summary.sizes.samples for _, summary in folders])
    rows = random.Random(seed).sample(range(int(ends[-1])), min(number, int(ends[-1])))
    for row in sorted(rows):
        which = int(np.searchsorted(ends, row, side="right"))
        folder, summary = folders[which]
        local = row - int(ends[which - 1] if which else 0)
        index = int(read_columns(folder, summary.header.id_dtype, summary.sizes)["samples/index.memmap"][local])
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
    plan: Plan, spec: ShardSpec, draws: Sequence[_Draw], left_out: set[int], encoder: Reencoder, proof: Proof
) -> None:
    size, base = plan.batch_size, spec.source_index + spec.first
    taking_part = {
        number: frozenset(batch_range(plan, spec, number)) - left_out
        for number in {(draw.index - base) // size for draw in draws}
    }
    encoded: dict[int, Example] = {}
    reasons: dict[int, str] = {}
    wanted = {draw.index for draw in draws}
    try:
        for records, batch in encoder.batches(spec, taking_part):
            proof.encoded += len(records)
            encoded |= {example.index: example for example in batch.examples if example.index in wanted}
            reasons |= {row.index: f"{row.reason}: {row.message}" for row in batch.rejects}
    except (UserError, OSError) as error:
        proof.differences.append(f"shard {spec.name}: {error}")
        return
    for draw in draws:
        stored = _stored(draw)
        if draw.index in encoded:
            difference = compare(stored, encoded[draw.index])
        else:
            difference = f"is rejected now ({reasons.get(draw.index, 'not read')})"
        if difference:
            proof.differences.append(f"{stored.key} (sample {draw.index}, {draw.folder.name}): {difference}")
        else:
            proof.equal += 1


def compare(stored: Example, encoded: Example) -> str:
    """Where two examples differ, in words; empty when they are the same."""
    if stored.key != encoded.key:
        return f"its key is {encoded.key} now"
    kinds = [[span.kind.name.lower() for span in example.spans] for example in (stored, encoded)]
    if kinds[0] != kinds[1]:
        return f"stored spans are {', '.join(kinds[0])}, encoded {', '.join(kinds[1])}"
    for number, (old, new) in enumerate(zip(stored.spans, encoded.spans, strict=True)):
        what = f"span {number} ({old.kind.name.lower()})"
        if (len(old.ids), old.height, old.width, old.flags) != (len(new.ids), new.height, new.width, new.flags):
            return f"{what}: stored {_shape(old)}, encoded {_shape(new)}"
        differing = np.flatnonzero(np.asarray(old.ids, np.int64) != np.asarray(new.ids, np.int64))
        if len(differing):
            at = int(differing[0])
            return (
                f"{what}: {len(differing)} of {len(old.ids)} ids differ, first at {at}: "
                f"stored {old.ids[at]}, encoded {new.ids[at]}"
            )
    return ""


def _shape(span: Span) -> str:
    return f"{len(span.ids)} ids, grid {span.height} x {span.width}, flags {span.flags}"


def _stored(draw: _Draw) -> Example:
    summary = shard.read_summary(draw.folder)
    arrays = read_columns(draw.folder, summary.header.id_dtype, summary.sizes)
    row, at = draw.row, int(arrays["samples/first_token.memmap"][draw.row])
    first = int(arrays["samples/first_span.memmap"][row])
    spans = []
    for number in range(first, first + int(arrays["samples/num_spans.memmap"][row])):
        end = at + int(arrays["spans/length.memmap"][number])
        height, width = arrays["spans/grid.memmap"][number].tolist()
        flags = int(arrays["spans/flags.memmap"][number])
        ids, kind = arrays["tokens/ids.memmap"][at:end], Kind(int(arrays["spans/kind.memmap"][number]))
        role, loss = Role(flags & ROLE_MASK), bool(flags & LOSS_FLAG)
        spans.append(Span(kind=kind, ids=ids, height=height, width=width, role=role, loss=loss))
        at = end
    starts = arrays["samples/first_key.memmap"]
    end = int(starts[row + 1]) if row + 1 < len(starts) else summary.sizes.keys
    key = arrays["keys/bytes.memmap"][int(starts[row]) : end].tobytes().decode()
    return Example(index=draw.index, key=key, spans=tuple(spans))

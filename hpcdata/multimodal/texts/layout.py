"""Encoded turns and the tokens of pictures -> the arrays of one example.

A single branch: input is all but the last id, labels are the next ids, weights are those of the labels.

Several branches (of allenai/molmo2 and the robot fork): after what is shared come the branches, each without its last
id, which is the label of its last place. Each branch begins at the position behind what is shared; without pictures at
0, as bos does. `subsegment_ids` are 10000 for what is shared, then the number of the branch: a token sees those before
it whose id is not smaller. Of first ids, that of the first branch alone is a label: a branch should begin with a
question, as all formats but `none` see to. `ends_inside`, of the first Molmo: the last ids of all but the last branch
stand in the input, too, and branches count from 1.

An answer that is asked for (`is_open`): nothing is shifted, nothing is learned, and behind the last id there is none:
`no_label`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.multimodal.texts.encoding import Encoded, EncodedTurn, Ids
from hpcdata.multimodal.texts.limits import Cut
from hpcdata.multimodal.values import Slot

SHARED = 10_000
"""`subsegment_ids` of what all branches see."""
NO_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """What the loss of an example is multiplied by."""

    root_subsegments: bool = False
    """By 1 / sqrt(branches that are kept)."""
    root_length: bool = False
    """The ids of an answer by 2 / sqrt(their number)."""
    ends_inside: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """All of [num_tokens]."""

    input_ids: np.ndarray
    """int64."""
    labels: np.ndarray
    """int64: the next ids, whether they are learned or not."""
    loss_masks: np.ndarray
    """float32: weights of the labels, 0 where nothing is learned."""
    position_ids: np.ndarray
    """int64."""
    subsegment_ids: np.ndarray | None
    """int32; None where there is one branch."""
    picture_starts: tuple[int, ...]
    """Where the first token of each picture stands."""


@dataclass
class _Run:
    """Ids in their order, with weights; and where pictures begin in it."""

    ids: np.ndarray
    weights: np.ndarray
    starts: dict[int, int]


def lay_out(
    encoded: Encoded,
    cut: Cut,
    blocks: Sequence[np.ndarray],
    names: Sequence[np.ndarray] = (),
    *,
    weight: float = 1.0,
    weighting: Weighting | None = None,
    no_label: int = NO_LABEL,
) -> Texts:
    """blocks: of each picture its tokens; names: what stands before each of them. weight: of the whole example."""
    weighting = weighting or Weighting()
    kept = [branch[:turns] for branch, turns in zip(encoded.branches, cut.num_turns, strict=False)]
    factor = weight / math.sqrt(len(kept)) if weighting.root_subsegments else weight
    shared = _run([(encoded.shared, None, 0.0)], blocks, names)
    runs = [_run(_weighted(branch, factor, weighting.root_length), blocks, names) for branch in kept]
    if len(runs) == 1:
        return _single(shared, runs[0], encoded.is_open, no_label)
    return _several(shared, runs, encoded.is_open, weighting.ends_inside, bool(blocks), no_label)


_Part = tuple[Sequence[Ids], np.ndarray | None, float]
"""What is not learned, what is, and its weight."""


def _weighted(branch: Sequence[EncodedTurn], factor: float, root_length: bool) -> list[_Part]:
    weights = [
        turn.weight * (2 / math.sqrt(len(turn.answer)) if root_length and len(turn.answer) else 1) for turn in branch
    ]
    return [(turn.lead, turn.answer, factor * weight) for turn, weight in zip(branch, weights, strict=True)]


def _run(parts: Sequence[_Part], blocks: Sequence[np.ndarray], names: Sequence[np.ndarray]) -> _Run:
    ids: list[np.ndarray] = [np.zeros(0, np.int64)]
    weights: list[np.ndarray] = [np.zeros(0, np.float32)]
    starts, length = {}, 0
    for lead, answer, weight in parts:
        for part in lead:
            if isinstance(part, Slot):
                name = names[part.picture] if names else ids[0]
                starts[part.picture] = length + len(name)
                ids += [name, blocks[part.picture]]
            else:
                ids.append(part)
            length = sum(map(len, ids))
        weights.append(np.zeros(length - sum(map(len, weights)), np.float32))
        if answer is not None:
            ids.append(answer)
            weights.append(np.full(len(answer), weight, np.float32))
            length += len(answer)
    return _Run(np.concatenate(ids).astype(np.int64), np.concatenate(weights), starts)


def _single(shared: _Run, branch: _Run, is_open: bool, no_label: int) -> Texts:
    ids, weights = np.concatenate([shared.ids, branch.ids]), np.concatenate([shared.weights, branch.weights])
    if is_open:
        ids, weights = np.append(ids, no_label), np.zeros(len(ids) + 1, np.float32)
    return Texts(
        input_ids=ids[:-1],
        labels=ids[1:],
        loss_masks=weights[1:],
        position_ids=np.arange(len(ids) - 1),
        subsegment_ids=None,
        picture_starts=_starts([(shared, 0), (branch, len(shared.ids))]),
    )


def _several(
    shared: _Run, branches: Sequence[_Run], is_open: bool, ends_inside: bool, has_pictures: bool, no_label: int
) -> Texts:
    first = len(shared.ids) if has_pictures else 0
    ids, positions, segments = [shared.ids], [np.arange(len(shared.ids))], [np.full(len(shared.ids), SHARED)]
    labels, weights = [shared.ids[1:]], [shared.weights[1:]]
    for number, run in enumerate(branches):
        is_whole = is_open or (ends_inside and number < len(branches) - 1)
        length = len(run.ids) if is_whole else len(run.ids) - 1
        ids.append(run.ids[:length])
        positions.append(np.arange(first, first + length))
        segments.append(np.full(length, number + ends_inside))
        begins = 0 if number == 0 or ends_inside else 1
        labels.append(run.ids[begins:])
        weights.append(np.zeros(len(run.ids) - begins) if is_open else run.weights[begins:])
        if is_open and (number == len(branches) - 1 or not ends_inside):
            labels.append(np.array([no_label]))
            weights.append(np.zeros(1))
    offset = 0 if len(shared.ids) else 1
    return Texts(
        input_ids=np.concatenate(ids),
        labels=np.concatenate(labels)[offset:],
        loss_masks=np.concatenate(weights)[offset:].astype(np.float32),
        position_ids=np.concatenate(positions),
        subsegment_ids=np.concatenate(segments).astype(np.int32),
        picture_starts=_starts([(shared, 0)]),
    )


def _starts(runs: Sequence[tuple[_Run, int]]) -> tuple[int, ...]:
    found = {picture: start + offset for run, offset in runs for picture, start in run.starts.items()}
    return tuple(found[picture] for picture in sorted(found))

"""What of an example that is too long is kept: decided from lengths, before a picture is decoded. No picture is cut.

First, whole branches: one that does not fit behind those before it, and all behind it, are left out; so are those
behind the one that reaches `max_text_tokens`. The first branch is always kept. (Molmo leaves out those of which no
learned token would fit, and cuts the last one that it keeps anywhere.)

What is still too long is for the policy, or for several in their order:

- `skip` (default): a counted reject, `too_long`;
- `error`: the job ends with a message;
- `drop_last_turns`: the last exchanges are left out, but none with a picture; the last turn is an answer;
- `fewer_crops`: pictures become fewer crops, as many as fit.

What these cannot make short enough is a reject. An example in which nothing is learned is the reject
`nothing_to_learn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcdata.base.errors import UserError
from hpcdata.multimodal.values import Measure
from hpcdata.samples import BadSample, Reason

POLICIES = ("error", "skip", "drop_last_turns", "fewer_crops")


@dataclass(frozen=True, kw_only=True)
class Limits:
    max_sequence_length: int | None = None
    max_text_tokens: int | None = None
    policies: tuple[str, ...] = ("skip",)
    ends_inside: bool = False
    """What ends a branch stands in the input, too, except of the last one, as in the first Molmo."""

    def __post_init__(self) -> None:
        for policy in self.policies or ("",):
            if policy not in POLICIES:
                raise UserError(f"truncation={policy}: expected {', '.join(POLICIES)}, or several of them in order")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is kept."""

    num_turns: tuple[int, ...]
    """Of each branch that is kept, its first turns."""
    max_crops: int
    """Of each picture at most."""

    def dropped(self, measure: Measure, most_crops: int) -> dict[str, int]:
        """What was left out, for metadata: names and numbers, of what is not zero."""
        kept = measure.num_tokens[: len(self.num_turns)]
        found = {
            "dropped_branches": len(measure.num_tokens) - len(kept),
            "dropped_turns": sum(map(len, kept)) - sum(self.num_turns),
            "dropped_crops_from": most_crops if self.max_crops < most_crops else 0,
        }
        return {name: number for name, number in found.items() if number}


def num_tokens(
    measure: Measure, num_turns: Sequence[int], picture_tokens: int, *, is_open: bool, ends_inside: bool
) -> int:
    """The length of the sequence of these turns. What ends the last branch, or each branch, is only a label."""
    texts = sum(sum(tokens[:kept]) for tokens, kept in zip(measure.num_tokens, num_turns, strict=False))
    ends = 0 if is_open else 1 if ends_inside else len(num_turns)
    return measure.num_shared + picture_tokens + texts - ends


def decide(
    measure: Measure, limits: Limits, *, most_crops: int, picture_tokens: Callable[[int], int], is_open: bool
) -> Cut:
    """most_crops: of a picture, without a limit; picture_tokens: ids of all pictures when each has at most so many
    crops, with their names. is_open: nothing is learned, an answer is asked for.

    Raises BadSample: TOO_LONG, NOTHING_TO_LEARN; UserError by the policy `error`.
    """
    num_turns = [len(tokens) for tokens in measure.num_tokens]
    if not is_open and not any(map(any, measure.num_learned)):
        raise BadSample(Reason.NOTHING_TO_LEARN, "no token of any answer has loss")
    pictures = picture_tokens(most_crops)

    def length(turns: Sequence[int], pictures: int) -> int:
        return num_tokens(measure, turns, pictures, is_open=is_open, ends_inside=limits.ends_inside)

    most = limits.max_sequence_length
    num_turns = num_turns[: _num_branches(measure, limits, pictures, length)]
    if most is None or length(num_turns, pictures) <= most:
        return _checked(Cut(num_turns=tuple(num_turns), max_crops=most_crops), measure, is_open)
    max_crops = most_crops
    for policy in limits.policies:
        if policy == "fewer_crops":
            fitting = (
                crops for crops in range(max_crops - 1, 0, -1) if length(num_turns, picture_tokens(crops)) <= most
            )
            max_crops = next(fitting, 1)
            pictures = picture_tokens(max_crops)
        elif policy == "drop_last_turns":
            while length(num_turns, pictures) > most and (fewer := _fewer(measure, num_turns)):
                num_turns = fewer
        elif policy == "error":
            break
        if length(num_turns, pictures) <= most:
            return _checked(Cut(num_turns=tuple(num_turns), max_crops=max_crops), measure, is_open)
    message = f"{length(num_turns, pictures)} tokens ({pictures} of pictures), max_sequence_length is {most}"
    if "error" in limits.policies:
        raise UserError(f"an example is too long: {message}; choose another truncation, or a longer sequence")
    raise BadSample(Reason.TOO_LONG, message)


def _num_branches(measure: Measure, limits: Limits, pictures: int, length: Callable[[Sequence[int], int], int]) -> int:
    """How many branches are kept before the policy."""
    turns = [len(tokens) for tokens in measure.num_tokens]
    text, most = 0, limits.max_sequence_length
    for number, tokens in enumerate(measure.num_tokens):
        if number and most is not None and length(turns[: number + 1], pictures) > most:
            return number
        text += sum(tokens)
        if limits.max_text_tokens is not None and text >= limits.max_text_tokens:
            return number + 1
    return len(turns)


def _fewer(measure: Measure, num_turns: Sequence[int]) -> list[int] | None:
    """The last exchange left out, or None where nothing may be. A branch ends with an answer that is learned."""
    last = len(num_turns) - 1
    learned = measure.num_learned[last]
    ends = [turn + 1 for turn in range(num_turns[last] - 1) if learned[turn] and turn + 1 >= measure.num_kept[last]]
    if ends:
        return [*num_turns[:last], ends[-1]]
    return list(num_turns[:last]) if last and not measure.num_kept[last] else None


def _checked(cut: Cut, measure: Measure, is_open: bool) -> Cut:
    kept = zip(measure.num_learned, cut.num_turns, strict=False)
    if not is_open and not any(any(learned[:turns]) for learned, turns in kept):
        raise BadSample(Reason.NOTHING_TO_LEARN, "no token of the answers that are kept has loss")
    return cut

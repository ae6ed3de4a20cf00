"""An example and its preprocessor -> what of them is shown."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.formatting.fields import pictures_of
from hpcdata.multimodal.gallery.page import Entry, Kind, Mark, Part, Run, Shown
from hpcdata.multimodal.gallery.thumbnails import to_jpeg
from hpcdata.multimodal.texts.layout import SHARED
from hpcdata.multimodal.texts.words import PICTURE_TOKENS, Words
from hpcdata.samples import BadSample

_LARGEST = 768
"""Pixels of the long side of a picture."""
_OF_CROP = 168
_MOST_CHARACTERS = 4000
"""Of what a dataset gives."""
_PATCH = "<im_patch>"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of the examples is shown."""

    crops: bool = False
    patches: bool = False
    """Each token of a picture, and not only how many there are."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of an example that was made."""

    num_tokens: int
    num_learned: int
    num_crops: int


def show(dataset: Any, item: int, preprocessor: Any, seed: int, look: Look) -> tuple[Entry, Figures | None]:
    """An example as the dataset gives it, and as the preprocessor makes it with the randomness of this seed."""
    title = f"example {item}"
    try:
        rng = np.random.RandomState(seed)
        example = dataset.get(item, rng)
    except BadSample as error:
        return Entry(title=title, fields="", reject=f"{error.reason}: {error.message}"), None
    shown = Entry(
        title=_titled(title, example), fields=_fields(example), pictures=tuple(_pictures(example, preprocessor))
    )
    try:
        made = preprocessor(example, rng)
    except BadSample as error:
        return dataclasses.replace(shown, reject=f"{error.reason}: {error.message}"), None
    figures = Figures(
        num_tokens=len(made["input_ids"]),
        num_learned=int((np.asarray(made["loss_masks"]) > 0).sum()),
        num_crops=len(made.get("images", ())),
    )
    facts = (f"{figures.num_tokens} tokens", f"{figures.num_learned} of them learned", f"{figures.num_crops} crops")
    crops = tuple(_crops(made, preprocessor)) if look.crops else ()
    parts = tuple(_parts(made, preprocessor.words, look))
    return dataclasses.replace(shown, crops=crops, parts=parts, facts=facts), figures


def _titled(title: str, example: Mapping[str, Any]) -> str:
    metadata = example.get("metadata") or {}
    named = next((metadata[name] for name in ("example_id", "id", "key") if name in metadata), None)
    return title if named is None else f"{title}: {named}"


def _pictures(example: Mapping[str, Any], preprocessor: Any) -> Iterator[Shown]:
    """As they are before preprocessing, with points and boxes; those that cannot be decoded are left out."""
    try:
        images = pictures_of(example)
    except BadSample:  # the preprocessor says why
        return
    for number, image in enumerate(images):
        try:
            pixels = preprocessor.load_image(image)
        except BadSample:  # as above
            continue
        height, width = pixels.shape[:2]
        marks = tuple(_marks(example, height, width)) if number == 0 else ()
        caption = f"{width} x {height}" if len(images) == 1 else f"picture {number + 1}, {width} x {height}"
        yield Shown(jpeg=to_jpeg(pixels, _LARGEST), caption=caption, marks=marks)


def _marks(example: Mapping[str, Any], height: int, width: int) -> Iterator[Mark]:
    """The points and boxes of an example and of its annotations, a color each."""
    messages = example.get("message_list") or []
    for group, annotation in enumerate([example, *(one for one in messages if isinstance(one, Mapping))]):
        scale = annotation.get("point_scale")
        label = str(annotation.get("label", ""))
        for point in _numbers(annotation.get("points"), 2):
            x, y = (point / scale if scale else point / (width, height)) * 100
            yield Mark(x=x, y=y, label=label, group=group)
        for box in _numbers(annotation.get("boxes"), 4):
            left, top, right, bottom = (box / scale if scale else box / (width, height, width, height)) * 100
            yield Mark(x=left, y=top, width=right - left, height=bottom - top, label=label, group=group)


def _numbers(values: Any, columns: int) -> np.ndarray:
    """[n, columns] float64; none for what has another shape, or dictionaries of x and y."""
    if values is None or len(values) == 0:
        return np.zeros((0, columns))
    if all(isinstance(value, Mapping) for value in values) and columns == 2:
        values = [[value.get("x", 0), value.get("y", 0)] for value in values]
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return np.zeros((0, columns))
    return array if array.ndim == 2 and array.shape[1] == columns else np.zeros((0, columns))


def _fields(example: Mapping[str, Any]) -> str:
    shown = json.dumps({str(name): _plain(value) for name, value in example.items()}, indent=1, ensure_ascii=False)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}... ({len(shown)} characters)"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray) and value.size <= 64:
        return value.tolist()
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    try:
        shape = getattr(value, "shape", None)
    except BadSample as error:  # a picture that cannot be opened
        return f"{type(value).__name__}: {error.message}"
    return f"{type(value).__name__}{'' if shape is None else f' {list(shape)}'}" if shape is not None else str(value)


def _crops(made: Mapping[str, Any], preprocessor: Any) -> Iterator[Shown]:
    for number, pixels in enumerate(preprocessor.crops_as_pixels(made.get("images", ()))):
        yield Shown(jpeg=to_jpeg(pixels, _OF_CROP), caption=f"crop {number + 1}")


def _parts(made: Mapping[str, Any], words: Words, look: Look) -> Iterator[Part]:
    """What is shared, and branch by branch: the ids, and behind them the last label if it is learned.

    An id is learned by the weight of the place before it, of its own branch: that is where it is the label.
    """
    ids, labels, weights = (np.asarray(made[name]) for name in ("input_ids", "labels", "loss_masks"))
    branches = np.asarray(made.get("subsegment_ids", np.zeros(len(ids), np.int64)))
    for branch in dict.fromkeys(branches.tolist()):
        at = np.flatnonzero(branches == branch)
        shown, learned = ids[at], np.append(0, weights[at[:-1]])
        if weights[at[-1]] > 0:
            shown, learned = np.append(shown, labels[at[-1]]), np.append(learned, weights[at[-1]])
        title = "What all branches see" if branch == SHARED else f"Branch {branch + 1}"
        title = title if "subsegment_ids" in made else "Tokens"
        if learned.any():
            title += f" (mean weight {learned[learned > 0].mean():.3g})"
        yield Part(title=title, runs=tuple(_runs(shown, learned, words, look)))


def _runs(ids: np.ndarray, weights: np.ndarray, words: Words, look: Look) -> Iterator[Run]:
    pictures = {words.special(token) for token in PICTURE_TOKENS}
    controls = {words.bos, words.eos, *words.engine.special_tokens().values()} - pictures

    def kind(token_id: int) -> Kind:
        return "picture" if token_id in pictures else "control" if token_id in controls else "text"

    tokens = [
        (kind(token_id), weight, token_id) for token_id, weight in zip(ids.tolist(), weights.tolist(), strict=True)
    ]
    for (its_kind, weight), group in itertools.groupby(tokens, key=lambda token: token[:2]):
        its_ids = [token_id for _, _, token_id in group]
        text = words.decode(its_ids)
        if its_kind == "picture" and not look.patches:
            text = _briefly(its_ids, words)
        yield Run(text=text, kind=its_kind, weight=weight, count=len(its_ids))


def _briefly(ids: Sequence[int], words: Words) -> str:
    """How many tokens stand for a picture, in place of these."""
    number = ids.count(words.special(_PATCH))
    return f"[{number} patches in {len(ids)} tokens]" if number else words.decode(ids)


def items_of(dataset: Any, number: int, *, shuffle: bool, seed: int) -> list[int]:
    """The first ones, or some at random. Raises UserError for an empty dataset."""
    if not len(dataset):
        raise UserError("the dataset has no examples")
    if shuffle:
        return np.random.RandomState(seed).permutation(len(dataset))[:number].tolist()
    return list(range(min(number, len(dataset))))

"""MolmoPreprocessor: an example -> the arrays that a model is trained on. It decodes pictures; its `measure` does not.

    preprocessor = MolmoPreprocessorConfig(...).build_preprocessor(tokenizer=..., is_training=True)
    preprocessor(example, rng)

gives, of N tokens and C crops:

    input_ids           [N] int64
    labels              [N] int64      the next id at each place, whether it is learned or not; -100: there is none
    loss_masks          [N] float32    weight of each label, 0 where nothing is learned
    position_ids        [N] int64
    subsegment_ids      [N] int32      of examples with several branches, see `texts.layout`
    images              [C, channels, height, width], or with output="patches" [C, patches, patch values]
    image_masks         [C, patches] float32, where the settings want them
    image_input_idx     [C] int64      where the first token of each crop stands, -1: it has none of its own; with
                                       output="patches" [C, cells]: where the token of each cell stands
    pooled_patches_idx  [patch tokens, patches of a cell] int64, with output="patches": crop * patches + patch, -1: none
    metadata            what the example and the formatter say, and what of the example was left out

An example without pictures has no key of pictures. With `for_inference` the last answer is left out and asked for.

`room(measure(example, rng))` says how long all of this will be, or raises what `__call__` will raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from hpcdata.media.rules import Rule
from hpcdata.multimodal import image_files
from hpcdata.multimodal.formatting.fields import pictures_of
from hpcdata.multimodal.formatting.formatter import DataFormatter
from hpcdata.multimodal.texts.encoding import Encoded, encode
from hpcdata.multimodal.texts.formats import Format
from hpcdata.multimodal.texts.layout import Texts, Weighting, lay_out
from hpcdata.multimodal.texts.limits import Limits, decide, num_tokens
from hpcdata.multimodal.texts.words import Words
from hpcdata.multimodal.timing import phase
from hpcdata.multimodal.values import Measure, Measures, PictureBlock, PicturePreprocessor, Room
from hpcdata.samples import BadSample, Reason

_REASONS = tuple(Reason)
_MOST_LENGTHS = 1 << 16
"""Lengths of pictures that are kept, by size."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is left to say beside the parts of a preprocessor, see `MolmoPreprocessorConfig`."""

    output: str
    max_images: int | None
    limits: Limits
    weighting: Weighting
    max_answer_len: int | None
    last_message_loss_only: bool
    names_pictures: bool
    for_inference: bool
    is_training: bool
    rule: Rule
    max_pixels: int


class MolmoPreprocessor:
    """Made by `MolmoPreprocessorConfig`. Safe in several threads; equal examples and randomness make equal arrays."""

    def __init__(
        self, *, pictures: PicturePreprocessor, formatter: DataFormatter, words: Words, form: Format, settings: Settings
    ) -> None:
        self.pictures, self.formatter, self.words, self.form, self._own = pictures, formatter, words, form, settings
        self._lengths: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self._names: dict[int, np.ndarray] = {}
        written = orjson.dumps(self._settings_of_texts(), option=orjson.OPT_SORT_KEYS, default=str)
        self.written_by = hashlib.sha256(written).hexdigest()[:32]
        """A digest of all that measures depend on: those of others with the same one are the same."""

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out."""
        own = self._own
        return self._settings_of_texts() | {
            "pictures": dict(self.pictures.settings()),
            "output": own.output,
            "max_images": own.max_images,
            "max_sequence_length": own.limits.max_sequence_length,
            "max_text_tokens": own.limits.max_text_tokens,
            "truncation": list(own.limits.policies),
            "root_subsegments": own.weighting.root_subsegments,
            "root_length": own.weighting.root_length,
            "ends_inside": own.limits.ends_inside,
            "names_pictures": own.names_pictures,
            "max_pixels": own.max_pixels,
        }

    def __call__(self, example: Mapping[str, Any], rng: np.random.RandomState | None = None) -> dict[str, Any]:
        """See the module. rng: draws for the formatter, then for the pictures; None: no chance.

        Raises BadSample: a counted reject; UserError by the policy `error`; OSError for faults of the machine.
        """
        decoded: list[np.ndarray] = []

        def sizes() -> list[tuple[int, int]]:
            if not decoded:
                decoded.extend(self._decoded(picture) for picture in pictures_of(example))
            return [(image.shape[0], image.shape[1]) for image in decoded]

        encoded, metadata = self._encoded(example, rng, sizes)
        measure = encoded.measure(sizes())
        cut = decide(
            measure,
            self._own.limits,
            most_crops=self.pictures.max_crops,
            picture_tokens=lambda crops: self._picture_tokens(measure.sizes, crops),
            is_open=self._own.for_inference,
        )
        fewer = {} if cut.max_crops == self.pictures.max_crops else {"max_crops": cut.max_crops}
        blocks = [self.pictures(image, rng, is_training=self._own.is_training, **fewer) for image in decoded]
        texts = lay_out(
            encoded,
            cut,
            [block.plan.tokens for block in blocks],
            self._picture_names(len(blocks)),
            weighting=self._own.weighting,
        )
        made = _arrays(texts) | _arrays_of_pictures(texts, blocks, self._own.output)
        return made | {"metadata": metadata | cut.dropped(measure, self.pictures.max_crops)}

    def measure(self, example: Mapping[str, Any], rng: np.random.RandomState | None = None) -> Measure:
        """What `__call__` would find with the same randomness; of picture files only headers are read.

        Raises BadSample as `__call__` does before it decodes.
        """
        found: list[tuple[int, int]] = []

        def sizes() -> list[tuple[int, int]]:
            if not found:
                found.extend(self._size(picture) for picture in pictures_of(example))
            return found

        before = None if rng is None else rng.get_state(legacy=False)
        encoded, _ = self._encoded(example, rng, sizes)
        is_drawn = rng is not None and _differ(before, rng.get_state(legacy=False))
        return encoded.measure(sizes(), is_drawn=is_drawn)

    def room(self, measure: Measure) -> Room:
        """What an example of this measure takes. Raises BadSample and UserError as `__call__` does."""
        self._check_number(len(measure.sizes))
        cut = decide(
            measure,
            self._own.limits,
            most_crops=self.pictures.max_crops,
            picture_tokens=lambda crops: self._picture_tokens(measure.sizes, crops),
            is_open=self._own.for_inference,
        )
        lengths = [self._length(height, width, cut.max_crops) for height, width in measure.sizes]
        return Room(
            num_tokens=num_tokens(
                measure,
                cut.num_turns,
                self._picture_tokens(measure.sizes, cut.max_crops),
                is_open=self._own.for_inference,
                ends_inside=self._own.limits.ends_inside,
            ),
            num_crops=sum(crops for _, crops, _ in lengths),
            num_pooled=sum(pooled for _, _, pooled in lengths),
        )

    def rooms(self, measures: Measures) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Of stored measures: [n] int64 each of tokens, crops, pooled patches, and why an example is rejected: 1 + the
        number of its reason among all, 0 if it is not. None: their texts were written by other settings, or drawn.
        """
        if measures.written_by != self.written_by or measures.is_drawn.any():
            return None
        columns = np.zeros((4, len(measures)), np.int64)
        for row in range(len(measures)):
            try:
                room = self.room(measures[row])
                columns[:3, row] = room.num_tokens, room.num_crops, room.num_pooled
            except BadSample as error:
                columns[3, row] = 1 + _REASONS.index(error.reason)
        tokens, crops, pooled, reason = columns
        return tokens, crops, pooled, reason

    def _settings_of_texts(self) -> dict[str, object]:
        own = self._own
        return {
            "formatter": self.formatter.settings(),
            "words": self.words.settings(),
            "chat": self.form.settings(),
            "max_answer_len": own.max_answer_len,
            "last_message_loss_only": own.last_message_loss_only,
            "for_inference": own.for_inference,
            "is_training": own.is_training,
            "rule": repr(own.rule),
        }

    def _encoded(
        self, example: Mapping[str, Any], rng: np.random.RandomState | None, sizes: Callable[[], list[tuple[int, int]]]
    ) -> tuple[Encoded, dict[str, Any]]:
        own = self._own
        with phase("text"):
            branches, metadata = self.formatter(
                example, rng, is_training=own.is_training, for_inference=own.for_inference, sizes=sizes
            )
            num_pictures = len(pictures_of(example))
            self._check_number(num_pictures)
            encoded = encode(
                branches,
                self.words,
                self.form,
                num_pictures=num_pictures,
                max_answer_len=own.max_answer_len,
                learns_last_only=own.last_message_loss_only,
            )
        return encoded, metadata

    def _check_number(self, num_pictures: int) -> None:
        most = self._own.max_images
        if most is not None and num_pictures > most:
            raise BadSample(Reason.TOO_MANY_IMAGES, f"{num_pictures} pictures, max_images is {most}")

    def _decoded(self, picture: object) -> np.ndarray:
        with phase("decode"):
            return image_files.pixels_of(picture, max_pixels=self._own.max_pixels, rule=self._own.rule)

    def _size(self, picture: object) -> tuple[int, int]:
        with phase("header"):
            return image_files.size_of(picture, max_pixels=self._own.max_pixels, rule=self._own.rule)

    def _picture_tokens(self, sizes: Sequence[tuple[int, int]], max_crops: int) -> int:
        names = sum(map(len, self._picture_names(len(sizes))))
        return names + sum(self._length(height, width, max_crops)[0] for height, width in sizes)

    def _picture_names(self, number: int) -> list[np.ndarray]:
        """Before each of several pictures: its number."""
        if number < 2 or not self._own.names_pictures:
            return []
        for picture in range(len(self._names), number):
            (self._names[picture],) = self.words.encode([f"Image {picture + 1}"])
        return [self._names[picture] for picture in range(number)]

    def _length(self, height: int, width: int, max_crops: int) -> tuple[int, int, int]:
        """(tokens, crops, pooled patches) of a picture."""
        key = (height, width, max_crops)
        if (found := self._lengths.get(key)) is None:
            fewer = {} if max_crops == self.pictures.max_crops else {"max_crops": max_crops}
            plan = self.pictures.plan(height, width, **fewer)
            found = (len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx))
            if len(self._lengths) >= _MOST_LENGTHS:
                self._lengths = {}
            self._lengths[key] = found
        return found


def _arrays(texts: Texts) -> dict[str, Any]:
    made: dict[str, Any] = {
        "input_ids": texts.input_ids,
        "labels": texts.labels,
        "loss_masks": texts.loss_masks,
        "position_ids": texts.position_ids,
    }
    return made if texts.subsegment_ids is None else made | {"subsegment_ids": texts.subsegment_ids}


def _arrays_of_pictures(texts: Texts, blocks: Sequence[PictureBlock], output: str) -> dict[str, np.ndarray]:
    if not blocks:
        return {}
    places = zip(blocks, texts.picture_starts, strict=True)
    inputs = [_shifted(block.plan.image_input_idx, start) for block, start in places]
    made = {"images": np.concatenate([block.pixels for block in blocks])}
    masks = [block.masks for block in blocks if block.masks is not None]
    if masks:
        made["image_masks"] = np.concatenate(masks)
    if output == "images":
        return made | {"image_input_idx": np.concatenate([_first_places(its) for its in inputs])}
    width = max(its.shape[1] for its in inputs)
    made["image_input_idx"] = np.concatenate([_widened(its, width) for its in inputs])
    pooled, patches = [], 0
    for block in blocks:
        pooled.append(_shifted(block.plan.pooled_patches_idx, patches))
        patches += block.plan.num_crops * block.pixels.shape[1]
    return made | {"pooled_patches_idx": np.concatenate(pooled)}


def _shifted(indices: np.ndarray, by: int) -> np.ndarray:
    """int64; -1 stays -1."""
    return np.where(indices < 0, -1, indices.astype(np.int64) + by)


def _first_places(indices: np.ndarray) -> np.ndarray:
    """[crops, cells] -> [crops]: the first place of each, -1 where it has none."""
    none = np.iinfo(np.int64).max
    first = np.where(indices < 0, none, indices).min(axis=1, initial=none)
    return np.where(first == none, -1, first)


def _widened(indices: np.ndarray, width: int) -> np.ndarray:
    return np.pad(indices, ((0, 0), (0, width - indices.shape[1])), constant_values=-1)


def _differ(before: Any, after: Any) -> bool:
    """States of a generator."""
    ours, theirs = before["state"], after["state"]
    is_same = ours["pos"] == theirs["pos"] and np.array_equal(ours["key"], theirs["key"])
    return not is_same or before["has_gauss"] != after["has_gauss"]

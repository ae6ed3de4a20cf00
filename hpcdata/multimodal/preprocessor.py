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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson

from hpcdata.media.rules import Rule
from hpcdata.multimodal import image_files
from hpcdata.multimodal.assembly import arrays_of_pictures, arrays_of_texts
from hpcdata.multimodal.formatting.fields import pictures_of
from hpcdata.multimodal.formatting.formatter import DataFormatter
from hpcdata.multimodal.formatting.points import says_places
from hpcdata.multimodal.rooms import Rooms
from hpcdata.multimodal.texts.encoding import Encoded, encode
from hpcdata.multimodal.texts.formats import Format
from hpcdata.multimodal.texts.layout import Weighting, lay_out
from hpcdata.multimodal.texts.limits import Limits
from hpcdata.multimodal.texts.words import PICTURE_TOKENS, Words
from hpcdata.multimodal.timing import phase
from hpcdata.multimodal.values import Measure, Measures, PicturePreprocessor, Room

if TYPE_CHECKING:
    from hpcdata.multimodal.loading.collation import MMCollator

_SIDE = 16
"""Pixels of a picture that stands for any other."""


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
        self._rooms = Rooms(
            pictures,
            words,
            settings.limits,
            is_open=settings.for_inference,
            max_images=settings.max_images,
            names_pictures=settings.names_pictures,
            max_pixels=settings.max_pixels,
        )
        written = orjson.dumps(self._settings_of_texts(), option=orjson.OPT_SORT_KEYS, default=str)
        self.written_by = hashlib.sha256(written).hexdigest()[:32]
        """A digest of all that measures depend on: those of others with the same one are the same."""

    @property
    def rule(self) -> Rule:
        """How a picture file becomes RGB."""
        return self._own.rule

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
        cut = self._rooms.cut(measure)
        keeps = self._own.is_training and says_places(example)
        blocks = [
            self.pictures(image, rng, is_training=self._own.is_training, max_crops=cut.max_crops, keeps_places=keeps)
            for image in decoded
        ]
        texts = lay_out(
            encoded,
            cut,
            [block.plan.tokens for block in blocks],
            self._rooms.names(len(blocks)),
            weighting=self._own.weighting,
        )
        made = arrays_of_texts(texts) | arrays_of_pictures(texts.picture_starts, blocks, self._own.output)
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

        watched = None if rng is None else _Watched(rng)
        encoded, _ = self._encoded(example, cast("np.random.RandomState | None", watched), sizes)
        return encoded.measure(sizes(), is_drawn=watched is not None and watched.is_drawn)

    def room(self, measure: Measure) -> Room:
        """What an example of this measure takes. Raises BadSample and UserError as `__call__` does."""
        return self._rooms.of(measure)

    def rooms(self, measures: Measures) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Of stored measures: [n] int64 each of tokens, crops, pooled patches, and why an example is rejected: 1 + the
        number of its reason among all, 0 if it is not.

        None: their texts were written by other settings, or drawn; or a branch of some example does not fit, and which
        one this is depends on their order, which is drawn.
        """
        if measures.written_by != self.written_by or measures.is_drawn.any():
            return None
        return self._rooms.of_many(measures, is_order_drawn=self._own.is_training and self.formatter.shuffle_messages)

    def load_image(self, picture: object) -> np.ndarray:
        """[height, width, 3] uint8 of what an example gives as a picture, decoded as for training. Raises BadSample."""
        return self._decoded(picture)

    def crops_as_pixels(self, images: np.ndarray) -> Iterable[np.ndarray]:
        """[height, width, 3] uint8 of each crop of `images` that `__call__` made: not normalised any more."""
        return self.pictures.crops_as_pixels(images)

    def build_collator(
        self, sequence_length: int | None = None, pad_mode: str | None = "batch_max", *, consumer: str = "hf"
    ) -> MMCollator:
        """The collator of what this preprocessor makes. With `max_len` all batches have the same shapes."""
        from hpcdata.multimodal.loading.collation import MMCollator

        blocks = [self.pictures(np.zeros((_SIDE, _SIDE, 3), np.uint8))]
        some = arrays_of_pictures((0,), blocks, self._own.output)
        most = self._own.max_images if pad_mode in ("max_len", "to_max") else None
        return MMCollator(
            sequence_length,
            pad_mode,
            consumer=consumer,
            max_crops=None if most is None else most * self.pictures.most_crops,
            max_pooled=None if most is None else most * self._rooms.most_pooled(),
            pad_id=self.words.eos,
            image_token_ids=[self.words.special(token) for token in PICTURE_TOKENS],
            empty_pictures={name: array[:0] for name, array in some.items()},
        )

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
            self._rooms.check_number(num_pictures)
            encoded = encode(
                branches,
                self.words,
                self.form,
                num_pictures=num_pictures,
                max_answer_len=own.max_answer_len,
                learns_last_only=own.last_message_loss_only,
            )
        return encoded, metadata

    def _decoded(self, picture: object) -> np.ndarray:
        with phase("decode"):
            return image_files.pixels_of(picture, max_pixels=self._own.max_pixels, rule=self._own.rule)

    def _size(self, picture: object) -> tuple[int, int]:
        with phase("header"):
            return image_files.size_of(picture, max_pixels=self._own.max_pixels, rule=self._own.rule)


class _Watched:
    """A generator that tells whether something was drawn from it, but for an order."""

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng, self.is_drawn = rng, False

    def __getattr__(self, name: str) -> Any:
        self.is_drawn |= name != "shuffle"
        return getattr(self._rng, name)

"""The two halves of a preprocessor by themselves, as Molmo's documents have them: one picture, one conversation.

ImagePreprocessor()(image, rng)                          [channels, height, width] tensor
InterleavedTextPreprocessor()(messages, tokenizer)       token ids, with one id where each picture stands
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.multimodal import image_files
from hpcdata.multimodal.config import MolmoPreprocessorConfig
from hpcdata.multimodal.formatting import fields, markers
from hpcdata.multimodal.texts.encoding import Encoded, encode
from hpcdata.multimodal.texts.formats import build_format
from hpcdata.multimodal.texts.limits import Limits, decide
from hpcdata.multimodal.texts.words import Words, build_words
from hpcdata.multimodal.values import Slot

if TYPE_CHECKING:
    import torch

IMAGE_TOKEN = "<|image|>"


class ImagePreprocessor:
    """A picture -> one crop: resized, augmented where this is asked for, normalised."""

    def __init__(self, is_training: bool = False, **settings: Any) -> None:
        """settings: of `MolmoPreprocessorConfig`, such as `base_image_input_size`, `vision`, `resize`, `normalize`."""
        self._config = MolmoPreprocessorConfig(
            **{"crop_mode": "resize", "max_crops": 1, **settings, "output": "images"}
        )
        self._pictures = self._config.build_pictures(build_words("embedded"))
        self.is_training = is_training

    def __call__(self, image: object, rng: np.random.RandomState | None = None) -> torch.Tensor:
        """image: [height, width, 3] uint8, or what else an example gives as a picture. Raises BadSample."""
        import torch

        array = image_files.pixels_of(image, max_pixels=self._config.max_pixels)
        block = self._pictures(array, rng, is_training=self.is_training)
        return torch.from_numpy(np.ascontiguousarray(block.pixels[0]))


class InterleavedTextPreprocessor:
    """A conversation -> ids. A picture's marker in what a user says is the id of `<|image|>`, see `texts.words`."""

    def __init__(
        self,
        message_format: str = "role",
        *,
        always_start_with_space: bool = False,
        max_length: int | None = None,
    ) -> None:
        """max_length: last exchanges are left out until so many ids are enough; a conversation of which none fits is
        a reject.
        """
        self._format, self._starts, self._limits = message_format, always_start_with_space, _limits(max_length)

    def __call__(self, messages: Sequence[Any], tokenizer: Any) -> list[int]:
        """messages: dictionaries of role and content, or texts in turn. tokenizer: see `texts.words`.

        With bos at its beginning and what ends an answer behind each. Raises BadSample.
        """
        words = build_words(tokenizer)
        form = build_format(self._format, words, always_start_with_space=self._starts)
        said = fields.messages_of(messages)
        is_open = said[-1].role != "assistant"
        number = markers.number_of(said)
        encoded = encode([markers.branch_of(said, number)], words, form, num_pictures=number)
        measure = encoded.measure([(1, 1)] * number)
        cut = decide(measure, self._limits, most_crops=1, picture_tokens=lambda _: number, is_open=is_open)
        return _ids(encoded, cut.num_turns[0], words)


def _ids(encoded: Encoded, num_turns: int, words: Words) -> list[int]:
    parts = [*encoded.shared]
    for turn in encoded.branches[0][:num_turns]:
        parts += [*turn.lead, turn.answer]
    image = [words.special(IMAGE_TOKEN)]
    return [token_id for part in parts for token_id in (image if isinstance(part, Slot) else part.tolist())]


def _limits(max_length: int | None) -> Limits:
    """What ends a conversation counts here."""
    return Limits(max_sequence_length=None if max_length is None else max_length - 1, policies=("drop_last_turns",))

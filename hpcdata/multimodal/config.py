"""MolmoPreprocessorConfig: all settings of a preprocessor, by the names that Molmo's documents and its code have.

    config = MolmoPreprocessorConfig(tokenizer="path/to/tokenizer", crop_mode="overlap-and-resize-c2", max_crops=12)
    preprocessor = config.build_preprocessor(for_inference=False, is_training=True)
    collator = config.build_collator(sequence_length=2048, pad_mode="to_128")

The settings of pictures are in `picture_settings`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from hpcdata.base.errors import UserError
from hpcdata.encoders.text.tokenizer import EMBEDDED
from hpcdata.media.rules import RULES, Rule, Truncated
from hpcdata.multimodal import image_files
from hpcdata.multimodal.formatting.formatter import DataFormatter
from hpcdata.multimodal.picture_settings import PictureSettings, check, check_count
from hpcdata.multimodal.pictures.molmo import MolmoPictures
from hpcdata.multimodal.preprocessor import MolmoPreprocessor, Settings
from hpcdata.multimodal.texts.formats import build_format
from hpcdata.multimodal.texts.layout import Weighting
from hpcdata.multimodal.texts.limits import Limits
from hpcdata.multimodal.texts.words import PICTURE_TOKENS, Words, build_words
from hpcdata.multimodal.values import PicturePreprocessor, PictureTokens

if TYPE_CHECKING:
    from hpcdata.multimodal.loading.collation import MMCollator

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


_WEIGHTINGS = {
    None: Weighting(),
    "root_subsegments": Weighting(root_subsegments=True),
    "root_length": Weighting(root_length=True),
    "root_subsegments_root_length": Weighting(root_subsegments=True, root_length=True),
}


def _naming_unknown_keywords(cls: type[_T]) -> type[_T]:
    """An unknown keyword is a UserError that names the nearest one."""
    known = [item.name for item in dataclasses.fields(cls) if item.init]  # type: ignore[arg-type]
    made: Callable[..., None] = cls.__init__

    @functools.wraps(made)
    def __init__(self: Any, **given: Any) -> None:  # noqa: N807
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UserError(f"{cls.__name__} has no setting {name}: {hint}it has {', '.join(known)}")
        made(self, **given)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


@_naming_unknown_keywords
@dataclass(frozen=True, kw_only=True)
class MolmoPreprocessorConfig(PictureSettings):
    """Settings are checked when it is made. Equal ones build preprocessors that make equal arrays."""

    tokenizer: Any = None
    """`embedded`, a path, or a tokenizer object, see `texts.words`; None: to be given when something is built."""
    pad_tokenizer_to: int | None = None

    image_rule: str = "molmo"
    """How a picture file becomes RGB, see `hpcdata.media.rules`."""
    truncated_jpegs: str = "reject"
    """`gray`: what is missing is gray, as in Molmo's own runs, and nobody is told."""
    max_pixels: int = image_files.MAX_PIXELS

    prompt_templates: str = "uber_model"
    templates: Mapping[str, Any] | str | Path | None = None
    system_prompt: str = "demo_or_style"
    message_format: str = "role"
    """`role`, `none`, `chatml`, `template` or a file of Jinja, see `texts.formats`."""
    always_start_with_space: bool = False
    default_inference_len: int | None = 65
    select_answer: str = "best"
    pointing_format: str = "default"
    format_message_list: str | None = None
    p_one_message: float = 0.0
    shuffle_messages: bool = True
    image_last: bool = False
    lone_markers: str = "reject"
    debug: bool = False
    """The first template of each style always."""

    max_sequence_length: int | None = None
    """Ids of an example at most; what is longer is for `truncation`."""
    truncation: str | Sequence[str] = "skip"
    """`skip`, `error`, `drop_last_turns`, `fewer_crops`, or several of them, see `texts.limits`."""
    max_text_tokens: int | None = None
    max_answer_len: int | None = None
    last_message_loss_only: bool = False
    loss_token_weighting: str | None = None
    """`root_subsegments`, `root_length` or `root_subsegments_root_length`, see `texts.layout`."""
    names_pictures: bool = True
    """`Image 1` and so on before the pictures of an example that has several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("image_rule", self.image_rule, tuple(RULES))
        check("truncated_jpegs", self.truncated_jpegs, get_args(Truncated))
        check("loss_token_weighting", self.loss_token_weighting, tuple(_WEIGHTINGS))
        check_count("max_pixels", self.max_pixels)
        for name in ("max_images", "max_sequence_length", "max_text_tokens", "max_answer_len"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        self.formatter()
        self._limits()

    def build_preprocessor(
        self,
        tokenizer: Any = None,
        *,
        for_inference: bool = False,
        is_training: bool = True,
        pictures: Callable[..., PicturePreprocessor] | None = None,
    ) -> MolmoPreprocessor:
        """tokenizer: instead of the setting. for_inference: the last answer is left out and asked for. is_training:
        orders of branches are drawn, and pictures are augmented where this is on. pictures: instead of the settings of
        pictures, what makes others with `tokens=` the ids of the special tokens: `LlavaPictures`, `QwenPictures`, or
        `functools.partial(QwenPictures, max_pixels=...)`.
        """
        words = self._words(tokenizer)
        formatter = self.formatter()
        return MolmoPreprocessor(
            pictures=self.build_pictures(words) if pictures is None else pictures(tokens=self._picture_tokens(words)),
            formatter=formatter,
            words=words,
            form=build_format(self.message_format, words, always_start_with_space=self.always_start_with_space),
            settings=Settings(
                output=self.output,
                max_images=self.max_images,
                limits=self._limits(),
                weighting=dataclasses.replace(
                    _WEIGHTINGS[self.loss_token_weighting], ends_inside=self.generation == "molmo"
                ),
                max_answer_len=self.max_answer_len,
                last_message_loss_only=self.last_message_loss_only,
                names_pictures=self.names_pictures,
                for_inference=for_inference,
                is_training=is_training,
                rule=self._rule(),
                max_pixels=self.max_pixels,
            ),
        )

    def build_collator(
        self,
        sequence_length: int | None = None,
        pad_mode: str | None = "batch_max",
        *,
        consumer: str = "hf",
        tokenizer: Any = None,
    ) -> MMCollator:
        """See `MMCollator`. tokenizer: as for the preprocessor, whose last one counts where none is given."""
        last = self.__dict__.get("_last") if tokenizer is None else tokenizer
        return self.build_preprocessor(last).build_collator(sequence_length, pad_mode, consumer=consumer)

    def build_pictures(self, words: Words) -> MolmoPictures:
        """What makes crops and patches of pictures, with the special tokens of a tokenizer."""
        return self.pictures(self._picture_tokens(words))

    def _rule(self) -> Rule:
        return dataclasses.replace(RULES[self.image_rule], truncated=self.truncated_jpegs)  # type: ignore[arg-type]

    @staticmethod
    def _picture_tokens(words: Words) -> PictureTokens:
        start, end, patch, col, _, low_res_patch, low_res_start = map(words.special, PICTURE_TOKENS)
        return PictureTokens(
            patch=patch, start=start, end=end, col=col, low_res_patch=low_res_patch, low_res_start=low_res_start
        )

    def formatter(self) -> DataFormatter:
        names = {item.name for item in dataclasses.fields(DataFormatter) if item.init} & {*self.__dataclass_fields__}
        return DataFormatter(**{name: getattr(self, name) for name in names})

    def _limits(self) -> Limits:
        policies = [self.truncation] if isinstance(self.truncation, str) else self.truncation
        return Limits(
            max_sequence_length=self.max_sequence_length,
            max_text_tokens=self.max_text_tokens,
            policies=tuple(policy.strip() for item in policies for policy in item.split(",")),
            ends_inside=self.generation == "molmo",
        )

    def _words(self, tokenizer: Any) -> Words:
        given = tokenizer if tokenizer is not None else self.tokenizer
        if given is None:
            _logger.warning("no tokenizer is given: the embedded one of 4096 ids is used, which is for trying out")
            given = EMBEDDED
        words = build_words(given, pad_tokenizer_to=self.pad_tokenizer_to)
        self.__dict__["_last"] = words
        return words

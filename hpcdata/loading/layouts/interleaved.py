"""Layouts for images between control ids: text-to-image, captioning, interleaved documents, conversations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import Manifest
from hpcdata.dataset.span_table import SpanTable
from hpcdata.loading.layouts import templates
from hpcdata.loading.layouts.base import Layout, check_shift, default_shift
from hpcdata.loading.layouts.sequences import Controls, Form, Lineup
from hpcdata.loading.layouts.templates import Template
from hpcdata.order.seeding import uniform


@dataclass(frozen=True, kw_only=True)
class Framed(Layout):
    """What layouts share in which control ids stand around images of any grid, as many as a sample has."""

    max_length: int | None = None
    """The most ids of a sample, control ids included."""
    img_token_shift: int | None = None
    """What is added to image codes, by default the dataset's, which defaults to the text vocabulary."""
    boi_id: int | None = None
    eoi_id: int | None = None
    """Begin and end of an image: by default the first two ids behind the image codes."""

    def _bound(self, manifest: Manifest) -> Self:
        shift = self.img_token_shift if self.img_token_shift is not None else default_shift(manifest)
        behind = shift + (manifest.image.codebook_size if manifest.image else 0)
        bound = dataclasses.replace(
            super()._bound(manifest),
            img_token_shift=shift,
            boi_id=behind if self.boi_id is None else self.boi_id,
            eoi_id=behind + 1 if self.eoi_id is None else self.eoi_id,
        )
        if bound.max_length is None or bound.max_length < bound.frame.num_added + 2:
            raise UserError(f"layout {self.name} needs max_length, the most ids of a sample, got {bound.max_length}")
        check_shift(bound.name, shift, manifest)
        return bound

    def with_room(self, length: int, *, force: bool = False) -> Self:
        return dataclasses.replace(self, max_length=length) if force or self.max_length is None else self

    @property
    def max_width(self) -> int:
        return self.max_length or 0

    @property
    def controls(self) -> Controls:
        shift, boi, eoi = self.img_token_shift or 0, self.boi_id or 0, self.eoi_id or 0
        return dataclasses.replace(super().controls, img_token_shift=shift, boi=boi, eoi=eoi)


@dataclass(frozen=True, kw_only=True)
class LiquidT2I(Framed):
    """`[bos] text [boi] codes [eoi] [eos]`, trained on codes, eoi and eos: Liquid's text-to-image."""

    name: ClassVar[str] = "liquid_t2i"
    form: ClassVar[Form] = Form(order="text_first", framed=True, loss=frozenset({"image", "eoi", "eos"}))

    unconditional_share: float = 0.1
    """Of the samples, drawn anew in every epoch: one `unconditional` id stands in for the text."""
    unconditional_id: int | None = None
    """By default the third id behind the image codes."""

    def _bound(self, manifest: Manifest) -> Self:
        bound = super()._bound(manifest)
        behind = (bound.img_token_shift or 0) + (manifest.image.codebook_size if manifest.image else 0)
        unconditional_id = behind + 2 if self.unconditional_id is None else self.unconditional_id
        return dataclasses.replace(bound, unconditional_id=unconditional_id)

    @property
    def controls(self) -> Controls:
        return dataclasses.replace(super().controls, unconditional=self.unconditional_id or 0)

    @property
    def draws_lots(self) -> bool:
        return self.unconditional_share > 0

    def unconditional(self, seeds: np.ndarray | None) -> np.ndarray | None:
        if not self.draws_lots:
            return None
        assert seeds is not None
        return uniform(seeds) < self.unconditional_share


@dataclass(frozen=True, kw_only=True)
class Caption(Framed):
    """`[bos] [boi] codes [eoi] text [eos]`, trained on the text and its eos."""

    name: ClassVar[str] = "caption"
    form: ClassVar[Form] = Form(order="image_first", framed=True, loss=frozenset({"text", "eos"}))


@dataclass(frozen=True, kw_only=True)
class Conversing(Framed):
    """What layouts of conversations share."""

    template: Template | None = None
    """What stands around turns, in place of bos and eos: `chat`, `unidisc`, a file of Jinja, or a ChatTemplate, see
    `templates`."""

    def _bound(self, manifest: Manifest) -> Self:
        if self.template is None:
            return super()._bound(manifest)
        if self.add_bos or self.add_eos:
            raise UserError(f"layout {self.name}: add_bos and add_eos are for samples without a template")
        bound = dataclasses.replace(self, add_bos=False, add_eos=False)
        bound = super(Conversing, bound)._bound(manifest)
        return dataclasses.replace(bound, template=templates.bind(self.template, manifest))

    def settings(self) -> dict[str, Any]:
        values = super().settings()
        template = values.pop("template")
        return values if template is None else {**values, "template": template.settings()}

    def lineup(self, table: SpanTable, seeds: np.ndarray | None, *, room: int | None = None) -> Lineup:
        if self.template is None:
            return super().lineup(table, seeds, room=room)
        conversations = cast("templates.Conversations", self.template)
        table, refused = templates.applied(conversations, table, skips=self.too_long == "skip")
        lineup = super().lineup(table, seeds, room=room)
        lineup.leave_out(refused)
        return lineup


@dataclass(frozen=True, kw_only=True)
class Interleaved(Conversing):
    """Texts and images as they are stored, trained on everything. What is too long loses its end (and its eos)."""

    name: ClassVar[str] = "interleaved"
    form: ClassVar[Form] = Form(framed=True, cut="tail")


@dataclass(frozen=True, kw_only=True)
class SFT(Conversing):
    """Conversations as they are stored, with an eos behind every trained turn, trained on these turns and their eos.

    With a template, what it puts at the end of a turn stands for the eos. A turn is trained on when the loss flag of
    its span is set, as sources do for what the assistant says.
    """

    name: ClassVar[str] = "sft"
    form: ClassVar[Form] = Form(framed=True, eos="turns", cut="tail", loss=frozenset({"text", "eos"}))

"""Decoding: an example as texts and pictures again, to look at (`TokenDataset.decode`).

The tokenizers must be those that made the ids and codes, which is told by the sha256 in the manifest. Their files are
looked for where the latest launch of the run had them, and among those that come with hpcdata. torch's global switches
and the environment stay as they are.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcdata.base import notebook
from hpcdata.base.errors import UserError
from hpcdata.native.forks import ForkLock
from hpcdata.samples import Example, Kind, Role, Span

if TYPE_CHECKING:
    from hpcdata.config.schema import RunConfig
    from hpcdata.dataset.manifest import Manifest
    from hpcdata.encoders.image.tokenizer import ImageTokenizer
    from hpcdata.encoders.text.chat import Chat, UniDisc
    from hpcdata.encoders.text.tokenizer import TextTokenizer
    from hpcdata.runs.identities import ImageIdentity, TextIdentity

EMBEDDED = "embedded"
_THUMBNAIL = 256
"""Most pixels of a side of a picture that a notebook gets."""
_PARALLELISM = "TOKENIZERS_PARALLELISM"
_lock = ForkLock()
"""A tokenizer serves one thread at a time."""


@dataclass(frozen=True, kw_only=True)
class DecodedText:
    """A text span, or a raw text that no tokenizer made ids of. Control tokens are written out, as in `<s>`."""

    text: str
    role: Role = Role.NONE
    loss: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImage:
    """An image span. pixels: [H, W, 3] uint8 RGB."""

    pixels: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """An example as people see it; `spans` are in its order. `index`, `key`: those of the sample in the plan."""

    index: int
    key: str
    spans: tuple[DecodedText | DecodedImage, ...]

    @property
    def texts(self) -> list[str]:
        return [span.text for span in self.spans if isinstance(span, DecodedText)]

    @property
    def images(self) -> list[np.ndarray]:
        """Each [H, W, 3] uint8 RGB."""
        return [span.pixels for span in self.spans if isinstance(span, DecodedImage)]

    def _repr_html_(self) -> str:
        rows, pictures = [], []
        for span in self.spans:
            if isinstance(span, DecodedText):
                rows.append(("text" if span.role == Role.NONE else span.role.name.lower(), span.text))
            else:
                height, width = span.pixels.shape[:2]
                pictures.append((png(span.pixels), f"{width} x {height}"))
        return notebook.table(f"{self.index}: {self.key}", rows) + notebook.pictures(pictures)


def decode(
    manifest: Manifest,
    example: Example,
    *,
    text_tokenizer: str | Path | None = None,
    image_checkpoint: str | Path | None = None,
    device: str = "cpu",
) -> Decoded:
    """Raises UserError when a tokenizer's file is not found, or is another than the one of the manifest."""
    tokenizers = _Tokenizers(manifest, text_tokenizer, image_checkpoint, device)
    with _lock:
        spans = [tokenizers.decode(span) for span in example.spans]
    if manifest.text is None:
        for text in reversed(example.texts):
            spans.insert(text.place, DecodedText(text=text.text, role=text.role, loss=text.loss))
    return Decoded(index=example.index, key=example.key, spans=tuple(spans))


def open_conversations(
    manifest: Manifest, template: str, *, system: str | None = None, text_tokenizer: str | Path | None = None
) -> Chat | UniDisc:
    """A conversation template with the ids of a dataset's tokenizer.

    template: `chat` (the tokenizer's own), `unidisc`, or a file of Jinja; system: what the system says where it says
    nothing; text_tokenizer: as for `decode`. Raises UserError.
    """
    from hpcdata.encoders.text import chat
    from hpcdata.encoders.text.tokenizer import build_reference

    identity = manifest.text
    if identity is None:
        raise UserError(f"{manifest.folder} has no texts: a conversation template is for conversations")
    frame, tokenizers = chat.Frame(identity.bos_id, identity.eos_id), _Tokenizers(manifest, text_tokenizer, None, "cpu")
    if template == chat.UNIDISC:
        said = tokenizers.text()[1].encode([system])[0].tolist() if system else []
        return chat.UniDisc(frame, said)
    file, _ = tokenizers.text()
    if template == chat.CHAT and file == EMBEDDED:
        raise UserError("the tokenizer that comes with hpcdata has no chat template: name another one")
    source, where = chat.find_template(file) if template == chat.CHAT else (chat.read_template(template), template)
    return chat.Chat(source, build_reference(identity, file), frame, system=system, where=where)


def png(pixels: np.ndarray, side: int = _THUMBNAIL) -> bytes:
    """pixels: [H, W, 3] uint8 -> a PNG of at most `side` pixels a side."""
    from PIL import Image

    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    image.thumbnail((side, side))
    image.save(buffer, "PNG")
    return buffer.getvalue()


class _Tokenizers:
    """The tokenizers of a dataset, each built when it is needed first, and kept for all datasets."""

    def __init__(self, manifest: Manifest, text: str | Path | None, checkpoint: str | Path | None, device: str) -> None:
        self._manifest, self._text, self._checkpoint, self._device = manifest, text, checkpoint, device

    def decode(self, span: Span) -> DecodedText | DecodedImage:
        if span.kind == Kind.IMAGE:
            return DecodedImage(pixels=self._pixels(span))
        ids = np.asarray(span.ids)
        if span.kind == Kind.BYTES:
            text = ids.astype(np.uint8).tobytes().decode(errors="replace")
        else:
            text = self.text()[1].decode(ids.tolist())
        return DecodedText(text=text, role=span.role, loss=span.loss)

    def _pixels(self, span: Span) -> np.ndarray:
        import torch

        codes = np.asarray(span.ids).astype(np.int64).reshape(1, span.height, span.width)
        pixels: np.ndarray = self._image_tokenizer().decode(torch.from_numpy(codes))[0].permute(1, 2, 0).numpy()
        return pixels

    def text(self) -> tuple[str, TextTokenizer]:
        """The tokenizer of the texts, and its file or folder."""
        identity = self._manifest.text
        if identity is None:
            raise UserError(f"{self._manifest.folder} does not say which tokenizer its text was made with")
        tried = [str(self._text)] if self._text else list(self._known_texts())
        for candidate in tried:
            try:
                return candidate, _build_text(identity, candidate)
            except UserError:
                continue
        raise UserError(
            f"the text of {self._manifest.folder} was made with a {identity.engine} tokenizer of sha256 "
            f"{identity.sha256[:16]}..., which is not {' or '.join(tried)}: pass text_tokenizer=FILE"
        )

    def _image_tokenizer(self) -> ImageTokenizer:
        identity, checkpoint = self._manifest.image, self._checkpoint
        if identity is None:
            raise UserError(f"{self._manifest.folder} does not say which tokenizer its image codes were made with")
        if checkpoint is None and (config := _latest_launch(self._manifest.folder)):
            checkpoint = config.image.checkpoint
        try:
            return _build_image(identity, str(checkpoint) if checkpoint else None, self._device)
        except UserError as error:
            raise UserError(
                f"the image codes of {self._manifest.folder} were made with {identity.preset}, weights of sha256 "
                f"{identity.sha256[:16]}...: pass image_checkpoint=FILE ({error})"
            ) from None

    def _known_texts(self) -> Iterator[str]:
        config = _latest_launch(self._manifest.folder)
        if config and config.text.tokenizer:
            yield config.text.tokenizer
        yield EMBEDDED


def _latest_launch(folder: Path) -> RunConfig | None:
    """The configuration of the run that a dataset, shard or checkpoint belongs to, if it still lies there."""
    from hpcdata.runs.plan import load_runtime

    for run in (folder, folder.absolute().parent):
        try:
            return load_runtime(run)
        except UserError:
            continue
    return None


@functools.lru_cache(maxsize=4)
def _build_text(identity: TextIdentity, tokenizer: str) -> TextTokenizer:
    from hpcdata.encoders.text import tokenizer as text

    parallelism = os.environ.get(_PARALLELISM)
    try:
        return text.build(identity, tokenizer)
    finally:
        if parallelism is None:  # encoding a shard sets it; the caller's own tokenizers shall not become slower
            os.environ.pop(_PARALLELISM, None)


@functools.lru_cache(maxsize=2)
def _build_image(identity: ImageIdentity, checkpoint: str | None, device: str) -> ImageTokenizer:
    from hpcdata.encoders.image import tokenizer as image

    return image.build(identity, checkpoint, device, cpu_threads=None)

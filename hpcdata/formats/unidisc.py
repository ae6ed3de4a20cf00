"""Exports a dataset in the form that another system's own loader reads.

    python -m hpcdata.export DATASET OUT --format unidisc

`unidisc` is one padded TensorDict, opened by `TensorDict.load_memmap(OUT)`. For a dataset of pairs (every sample is
one text and one image, all images of one grid):

    img_input_ids       [N, height * width] int32    codes, *unshifted*: UniDisc adds data.img_token_shift itself
    txt_input_ids       [N, block_size]     int32    bos, text, eos; cut or padded on the right
    txt_attention_mask  [N, block_size]     bool     False on padding
    idx                 [N, 1]              int64    index in the plan
    write_flag          [N, 1]              bool     True: every row is written

For any other dataset, spans in the order of the sample, with all their ids unshifted:

    input_ids           [N, max_length]     int32
    attention_mask      [N, max_length]     bool
    modality            [N, max_length]     int8     0 text (and padding), 1 image: where UniDisc adds the shift
    idx                 [N, 1]              int64
    sample_ids          [N, max_length]     int32    0, and -1 on padding: see below

UniDisc's packing ends a sample at the first -1 of `sample_ids` or, without these, at the first id of its `[PAD]`, which
is the first id behind the text vocabulary (32000 with Llama-2). So they are written unless padding has that id, and
nothing else has: no text, and no code. `pad_id="unidisc"` and `image_token_id="unidisc"` give padding and `<image>` the
ids that they have there (`<image>` is 811).

A conversation template (`template="unidisc"`, `chat`, or a file of Jinja) puts its ids around the turns of
conversations, in place of bos and eos: see `hpcdata.loading.layouts.templates`.

Ids are int32, where UniDisc's own scripts write int16: these wrap above 32,767, so that codes of larger codebooks and
shifted ids come back negative. Do not pass an export through its combine_token_dicts.py, which drops images that
contain code 0. `export.json` beside the tensors records what they were made with. OUT appears at once, when it is
complete, and the same line again finds it. A sample that is longer than --max_length ends before the first image that
would not fit whole.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.reads import naming
from hpcdata.dataset.dataset import SpanTable, TokenDataset
from hpcdata.encoders.text.special_ids import Choice
from hpcdata.formats.arranging import Building, arrange
from hpcdata.formats.origins import origins_of
from hpcdata.formats.target import Source, Target, is_target
from hpcdata.formats.unidisc_ids import Marker, find_marker, padding
from hpcdata.loading.layouts.named import Layout
from hpcdata.loading.layouts.padded_text import Frame, make_text_block
from hpcdata.loading.layouts.templates import ChatTemplate, Conversations, applied
from hpcdata.native.arrays import before_in_row, ragged
from hpcdata.samples import Kind

log = logging.getLogger(__name__)

FORMATS = ("unidisc",)
_CHUNK_IDS = 2**20
"""Ids in memory at a time."""
_SCAN_ROWS = 65_536
_TORCH_ERRNO = re.compile(r": [^:()]+ \((\d+)\)$")
"""At the end of what torch says of a file."""

Columns = dict[str, tuple[str, int]]
"""(dtype, width) by name."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    block_size: int | None = None
    """Columns of text of pairs: by default the dataset's, else what the longest text needs."""
    max_length: int | None = None
    """Columns of interleaved samples: by default what the longest sample needs."""
    add_bos: bool | None = None
    add_eos: bool | None = None
    pad_id: Choice = None
    """The last three as in layouts: by default what the dataset's tokenizer has. `unidisc`: UniDisc's own."""
    image_token_id: Choice = None
    """What the dataset's `<image>` becomes, where its texts have one; `unidisc`: 811."""
    sample_ids: bool | None = None
    """Of interleaved samples: write `sample_ids`; by default where padding cannot be told by its id. False: refuse
    these."""
    template: str | None = None
    """What stands around turns, as in ChatTemplate; with `system` and `text_tokenizer` as there."""
    system: str | None = None
    text_tokenizer: str | None = None
    interleaved: bool = False
    """Write `input_ids` even for pairs."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    kind: str
    """"pairs" or "interleaved"."""
    samples: int
    width: int
    """block_size or max_length."""
    truncated_texts: int = 0
    left_out_images: int = 0
    sample_ids: bool = False
    """Whether they were written."""


def export_unidisc(path: str | Path, out: str | Path, options: ExportOptions) -> ExportSummary:
    """Writes the folder `out` in constant memory, or finds this export there. Raises UserError."""
    dataset, out = TokenDataset(path), Path(out)
    if out.exists() and not is_target(out):
        raise UserError(f"{out} exists already: choose another place, or remove it first")
    if not len(dataset):
        raise UserError(f"{path} has no samples: there is nothing to export")
    if not files.is_utf8(out.absolute()):
        raise UserError(f"{str(out.absolute())!r} is not UTF-8, and torch opens no such file: choose another name")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder: make it first")
    export = _plan(dataset, options)
    manifest = dataset.manifest
    chosen = {name: value for name, value in vars(options).items() if name != "text_tokenizer"}  # `template` tells it
    template = None if export.conversations is None else export.conversations.settings()
    target = Target(
        format="unidisc",
        options={**chosen, "template": template},
        source=Source.of(manifest),
        counts=manifest.counts,
        origins=origins_of(manifest),
    )

    def fill(building: Building) -> dict[str, object]:
        with naming(out):
            summary = export.write(building.folder)
        record = _record(export, options, summary)
        building.adopt()
        building.write("export.json", files.to_json(record))
        return {name: record[name] for name in ("result", "frame", "img_token_shift")}

    return ExportSummary(**arrange(out, target, fill).facts["result"])


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """What the whole dataset looks like."""

    num_codes: int | None
    """Codes of every image, if all samples are one text and one image of one grid."""
    longest_text: int
    longest_sample: int


@dataclass(kw_only=True)
class _Export:
    """One way to write a dataset; counts while it does."""

    dataset: TokenDataset
    frame: Frame
    width: int
    num_codes: int | None
    marker: Marker | None
    conversations: Conversations | None
    wants_sample_ids: bool | None
    """None: if they are needed."""
    pad_is_theirs: bool
    """UniDisc's own id of padding is used."""
    truncated_texts: int = 0
    left_out_images: int = 0
    pad_in_use: int | None = None
    """The first sample, by its index in the plan, with the id of padding among its own."""

    @property
    def needs_sample_ids(self) -> bool:
        return self.num_codes is None and (self.pad_in_use is not None or not self.pad_is_theirs)

    @property
    def columns(self) -> Columns:
        if self.num_codes is None:
            optional: Columns = {} if self.wants_sample_ids is False else {"sample_ids": ("int32", self.width)}
            return {
                "input_ids": ("int32", self.width),
                "attention_mask": ("bool", self.width),
                "modality": ("int8", self.width),
                "idx": ("int64", 1),
                **optional,
            }
        return {
            "img_input_ids": ("int32", self.num_codes),
            "txt_input_ids": ("int32", self.width),
            "txt_attention_mask": ("bool", self.width),
            "idx": ("int64", 1),
            "write_flag": ("bool", 1),
        }

    def write(self, folder: Path) -> ExportSummary:
        num_rows = max(1, _CHUNK_IDS // (self.width + (self.num_codes or 0)))
        with ExitStack() as stack:
            column_files = {name: stack.enter_context(open(folder / f"{name}.memmap", "xb")) for name in self.columns}
            for table in _tables(self.dataset, num_rows, self.conversations):
                arrays = self._interleaved(table) if self.num_codes is None else self._pairs(table)
                self._append(column_files, arrays)
            for file in column_files.values():
                file.flush()
                os.fsync(file.fileno())
        columns = self.columns
        if "sample_ids" in columns and not (self.wants_sample_ids or self.needs_sample_ids):
            (folder / "sample_ids.memmap").unlink()
            del columns["sample_ids"]
        _write_meta(folder, columns, len(self.dataset))
        return ExportSummary(
            kind="interleaved" if self.num_codes is None else "pairs",
            samples=len(self.dataset),
            width=self.width,
            truncated_texts=self.truncated_texts,
            left_out_images=self.left_out_images,
            sample_ids="sample_ids" in columns,
        )

    def _append(self, column_files: Mapping[str, BinaryIO], arrays: Mapping[str, np.ndarray]) -> None:
        for name, (dtype, width) in self.columns.items():
            assert arrays[name].shape[1] == width, name
            column_files[name].write(np.ascontiguousarray(arrays[name], dtype=dtype).data)

    def _pairs(self, table: SpanTable) -> dict[str, np.ndarray]:
        assert self.num_codes is not None
        texts, images = table.select(table.kind == Kind.TEXT), table.select(table.kind == Kind.IMAGE)
        text = make_text_block(self.dataset, texts, self.width, self.frame)
        self.truncated_texts += text.num_truncated
        is_valid = np.arange(self.width) < text.lengths[:, None]
        if self.marker is not None:
            text.ids[is_valid & (text.ids == self.marker.stored)] = self.marker.written
        codes = np.empty((table.num_rows, self.num_codes), np.int32)
        codes[images.row] = self.dataset.windows(images.part, images.first_token, self.num_codes)
        return {
            "img_input_ids": codes,
            "txt_input_ids": text.ids,
            "txt_attention_mask": is_valid,
            "idx": table.index[:, None],
            "write_flag": np.ones((table.num_rows, 1), bool),
        }

    def _interleaved(self, table: SpanTable) -> dict[str, np.ndarray]:
        table = table.select(table.kind != Kind.BYTES)
        spans = self._without_cut_images(table)
        block = make_text_block(self.dataset, spans, self.width, self.frame)
        self.truncated_texts += block.num_truncated
        images = spans.select(spans.kind == Kind.IMAGE)
        start = before_in_row(spans.row, spans.length)[spans.kind == Kind.IMAGE] + (self.frame.bos is not None)
        source, within = ragged(images.length)
        modality = np.zeros((table.num_rows, self.width), np.int8)
        modality[images.row[source], start[source] + within] = 1
        is_valid = np.arange(self.width) < block.lengths[:, None]
        if self.marker is not None:
            self.marker.rename(block.ids, is_valid & (modality == 0), images, start)
        self._check_pad(block.ids, is_valid, table.index)
        return {
            "input_ids": block.ids,
            "attention_mask": is_valid,
            "modality": modality,
            "idx": table.index[:, None],
            "sample_ids": is_valid - 1,
        }

    def _check_pad(self, ids: np.ndarray, is_valid: np.ndarray, index: np.ndarray) -> None:
        """Notes the first sample with the id of padding. Raises UserError where nothing else would tell padding."""
        if self.pad_in_use is not None:
            return
        rows = np.flatnonzero(((ids == self.frame.pad) & is_valid).any(axis=1))
        if len(rows):
            self.pad_in_use = int(index[rows[0]])
            if self.wants_sample_ids is False:
                raise UserError(
                    f"sample {self.pad_in_use} has an id {self.frame.pad}, which is also that of padding: UniDisc "
                    "would end it there; choose another --pad-id, or leave out --no-sample-ids"
                )

    def _without_cut_images(self, table: SpanTable) -> SpanTable:
        """Rows end before the first image that would not fit whole."""
        column = before_in_row(table.row, table.length)
        room = self.width - self.frame.num_added
        is_image = table.kind == Kind.IMAGE
        is_cut = is_image & (column + table.length > room)
        end = np.full(table.num_rows, np.iinfo(np.int64).max)
        np.minimum.at(end, table.row[is_cut], column[is_cut])
        keep = column < end[table.row]
        self.left_out_images += int(np.count_nonzero(is_image & ~keep))
        return table.select(keep)


def _plan(dataset: TokenDataset, options: ExportOptions) -> _Export:
    theirs, conversations = padding(dataset.manifest), _conversations(dataset, options)
    pad_id = theirs if isinstance(options.pad_id, str) else options.pad_id
    layout = Layout(add_bos=options.add_bos, add_eos=options.add_eos, pad_id=pad_id)
    if conversations is not None:
        layout = dataclasses.replace(layout, add_bos=False, add_eos=False)
    scan, frame = _scan(dataset, conversations), layout.bind(dataset.manifest).frame
    if scan.num_codes is not None and not options.interleaved:
        num_codes, needed = scan.num_codes, scan.longest_text + frame.num_added
        wanted = (options.block_size, dataset.manifest.layout.block_size)
    else:
        num_codes, needed = None, scan.longest_sample + frame.num_added
        wanted = (options.max_length, None)
    width = next((width for width in wanted if width is not None), max(needed, 1))
    if width < max(1, frame.num_added):
        raise UserError(f"{'--max_length' if num_codes is None else '--block_size'} {width}: bos and eos do not fit")
    return _Export(
        dataset=dataset,
        frame=frame,
        width=width,
        num_codes=num_codes,
        conversations=conversations,
        marker=find_marker(dataset.manifest, options.image_token_id),
        wants_sample_ids=options.sample_ids,
        pad_is_theirs=frame.pad == theirs,
    )


def _conversations(dataset: TokenDataset, options: ExportOptions) -> Conversations | None:
    if options.template is None:
        if options.system is not None:
            raise UserError("--system is for conversations: add --template")
        return None
    if options.add_bos or options.add_eos:
        raise UserError("--bos and --eos are for samples without --template")
    template = ChatTemplate(name=options.template, system=options.system, text_tokenizer=options.text_tokenizer)
    return template.bind(dataset.manifest)


def _scan(dataset: TokenDataset, conversations: Conversations | None) -> _Scan:
    found: set[tuple[int, ...]] = set()
    is_pairs, longest_text, longest_sample = conversations is None, 0, 0
    for table in _tables(dataset, _SCAN_ROWS, conversations):
        texts, images = table.select(table.kind == Kind.TEXT), table.select(table.kind == Kind.IMAGE)
        is_pairs &= all((np.bincount(spans.row, minlength=spans.num_rows) == 1).all() for spans in (texts, images))
        grids = np.unique(np.column_stack([images.height, images.width, images.length]), axis=0)
        found.update(map(tuple, grids[:2].tolist()))
        longest_text = max(longest_text, int(texts.length.max(initial=0)))
        both = table.select(table.kind != Kind.BYTES)
        longest_sample = max(longest_sample, int(np.bincount(both.row, both.length).max(initial=0)))
    num_codes = next(iter(found))[2] if is_pairs and len(found) == 1 else None
    return _Scan(num_codes=num_codes, longest_text=longest_text, longest_sample=longest_sample)


def _tables(dataset: TokenDataset, num_rows: int, conversations: Conversations | None) -> Iterator[SpanTable]:
    for first in range(0, len(dataset), num_rows):
        table = dataset.spans(np.arange(first, min(first + num_rows, len(dataset))))
        yield table if conversations is None else applied(conversations, table).table


def _write_meta(folder: Path, columns: Columns, num_rows: int) -> None:
    """Lets tensordict write its `meta.json` for the files that are already there."""
    import torch
    from tensordict import MemoryMappedTensor, TensorDict

    try:
        tensors = {
            name: MemoryMappedTensor.from_filename(
                folder / f"{name}.memmap", dtype=getattr(torch, dtype), shape=torch.Size([num_rows, width])
            )
            for name, (dtype, width) in columns.items()
        }
        TensorDict(tensors, batch_size=[num_rows]).memmap_(folder, copy_existing=True)
    except RuntimeError as error:
        if (found := _TORCH_ERRNO.search(str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from None


def _record(export: _Export, options: ExportOptions, summary: ExportSummary) -> dict[str, object]:
    manifest = export.dataset.manifest
    return {
        "format": "unidisc",
        "options": dataclasses.asdict(options),
        "result": dataclasses.asdict(summary),
        "frame": dataclasses.asdict(export.frame),
        "template": None if export.conversations is None else export.conversations.settings(),
        "content_digest": manifest.content_digest,
        "fingerprint": manifest.fingerprint,
        "img_token_shift": manifest.layout.img_token_shift,
    }

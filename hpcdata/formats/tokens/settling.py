"""What is asked for, checked against the dataset: `auto` and null become what they mean."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, cast

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.tokens import find_format
from hpcdata.formats.tokens.rows import Rule

_ALWAYS = ("format", "out", "shuffle_seed", "file_bytes", "source")
_TEXT_BYTES = 4096
COLUMNS = ("input_ids", "modality", "loss_mask", "key", "text", "spans")
SEQUENCE_KEYS = ("bos", "eod", "image_begin", "image_end", "image_shift", "dtype")
"""Of formats that write each row as one sequence of ids."""
Dtype = Literal["uint16", "int32", "int64"]
_MAX: dict[str, int] = {"uint16": 2**16 - 1, "int32": 2**31 - 1, "int64": 2**63 - 1}


def settled(export: ExportConfig, manifest: Manifest) -> ExportConfig:
    """Raises UserError for settings that the format or the dataset has no place for."""
    if not manifest.id_dtype:
        raise UserError(f"{manifest.folder} holds no tokens (stage {manifest.stage}), export reads datasets of tokens")
    if not manifest.num_samples:
        raise UserError(f"{manifest.folder} is empty: there is nothing to export")
    found = find_format(export.format)
    for item in dataclasses.fields(ExportConfig):
        if item.name not in (*_ALWAYS, *found.keys) and getattr(export, item.name) != item.default:
            raise UserError(f"export.{item.name} means nothing for format {found.name}: leave it out")
    if export.file_bytes < 1:
        raise UserError(f"export.file_bytes={export.file_bytes}: expected a number above 0")
    if unknown := [name for name in export.columns or () if name not in COLUMNS]:
        raise UserError(f"export.columns has {unknown[0]}, expected some of {', '.join(COLUMNS)}")
    return dataclasses.replace(found.settle(export, manifest), source=digest_of(manifest))


def digest_of(manifest: Manifest) -> str:
    """Of all that rows of a dataset depend on, and of their order: no path, no time."""
    parts = manifest.parts
    values: list[Any] = [manifest.fingerprint, manifest.content_digest, manifest.id_dtype]
    values += [list(parts.samples), list(parts.tokens), list(parts.content_digest)]
    values += [vars(item) if item else None for item in (manifest.text, manifest.image, manifest.layout)]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def settled_ids(export: ExportConfig, manifest: Manifest, *, eod: bool, dtypes: tuple[Dtype, ...]) -> ExportConfig:
    """With the ids of a sequence. eod: whether there is one where none is asked for; dtypes: that the format can hold.

    Afterwards bos and eod are an id or `none`, and image_shift is a number where there are pictures.
    """
    text = manifest.text
    chosen = "eos" if export.eod == "auto" and eod and text and text.eos_id is not None else export.eod
    eod_id = _special("eod", "none" if chosen == "auto" else chosen, "eos", text.eos_id if text else None)
    bos_id = _special("bos", export.bos, "bos", text.bos_id if text else None)
    has_images = manifest.image is not None
    shift = export.image_shift if export.image_shift is not None else default_shift(manifest)
    for name in ("image_begin", "image_end", "image_shift"):
        if not has_images and getattr(export, name) is not None:
            raise UserError(f"export.{name}: {manifest.folder} has no pictures")
    controls = {"eod": eod_id, "bos": bos_id, "image_begin": export.image_begin, "image_end": export.image_end}
    largest = max(num_ids(export, manifest) - 1, *(item for item in controls.values() if isinstance(item, int)), 0)
    for name, value in controls.items():
        if isinstance(value, int) and value < 0:
            raise UserError(f"export.{name}={value}: expected an id from 0 on")
    if shift < 0:
        raise UserError(f"export.image_shift={shift}: expected a number from 0 on")
    dtype = export.dtype
    if dtype == "auto":
        dtype = next((name for name in dtypes if largest <= _MAX[name]), dtypes[-1])
    if dtype not in dtypes or largest > _MAX[dtype]:
        able = [name for name in dtypes if largest <= _MAX[name]]
        raise UserError(f"export.dtype={dtype}: ids reach {largest}, expected one of {', '.join(able) or 'none'}")
    return dataclasses.replace(export, eod=eod_id, bos=bos_id, dtype=dtype, image_shift=shift if has_images else None)


def settled_columns(
    export: ExportConfig, manifest: Manifest, *, able: Sequence[str], key: bool = False
) -> ExportConfig:
    """With the columns that are written; by default ids, where there are pictures also which of them are codes.

    able: those that the format can hold; key: whether the default has `key`.
    """
    if export.columns is None:
        names = [*(["key"] if key else []), "input_ids", *(["modality"] if manifest.image else [])]
        return dataclasses.replace(export, columns=names)
    if not export.columns or len(set(export.columns)) < len(export.columns):
        raise UserError(f"export.columns={export.columns}: expected names, each of them once")
    if unable := [name for name in export.columns if name not in able]:
        raise UserError(
            f"export.columns: format {export.format} has no {unable[0]}, expected some of {', '.join(able)}"
        )
    if "text" in export.columns:
        require_texts(manifest, "export.columns=text")
    return export


def require_texts(manifest: Manifest, what: str) -> None:
    """Raises UserError where a dataset has ids alone."""
    config = manifest.extra.get("config")
    text = config.get("text") if isinstance(config, dict) else None
    if not (isinstance(text, dict) and text.get("keep_raw")):
        raise UserError(f"{what}: {manifest.folder} keeps no texts; tokenize it again with text.keep_raw=true")


def without(export: ExportConfig, names: Sequence[str], what: str) -> ExportConfig:
    """Raises UserError for settings that mean nothing for `what`."""
    for item in dataclasses.fields(ExportConfig):
        if item.name in names and getattr(export, item.name) != item.default:
            raise UserError(f"export.{item.name} means nothing for {what}: leave it out")
    return export


def bytes_an_id(export: ExportConfig) -> int:
    """Of all columns that have a value for each id; of settled settings."""
    width = {"uint16": 2, "int32": 4, "int64": 8}[export.dtype]
    names = export.columns or ["input_ids"]
    return width * ("input_ids" in names) + sum(name in ("modality", "loss_mask") for name in names) or 1


def rule_of(export: ExportConfig) -> Rule:
    """Of settled settings."""
    return Rule(
        dtype=export.dtype,
        image_shift=export.image_shift or 0,
        bos=export.bos if isinstance(export.bos, int) else None,
        eod=export.eod if isinstance(export.eod, int) else None,
        image_begin=export.image_begin,
        image_end=export.image_end,
    )


def num_ids(export: ExportConfig, manifest: Manifest) -> int:
    """Ids of texts and shifted codes lie below it, and so do ids that settings name."""
    shift = export.image_shift if export.image_shift is not None else default_shift(manifest)
    given = [item for item in (export.eod, export.bos, export.image_begin, export.image_end) if isinstance(item, int)]
    return max(
        manifest.text.vocab_size if manifest.text else 1,
        shift + manifest.image.codebook_size if manifest.image else 0,
        *(item + 1 for item in given),
        1,
    )


def default_shift(manifest: Manifest) -> int:
    layout, text = manifest.layout, manifest.text
    if layout.img_token_shift is not None:
        return layout.img_token_shift
    return layout.text_vocab_size or (text.vocab_size if text else 0)


def facts_of(export: ExportConfig, manifest: Manifest) -> dict[str, Any]:
    """What users of exported sequences must know: the ids in them."""
    rule = rule_of(export)
    return {
        "dtype": rule.dtype,
        "text_vocab_size": manifest.text.vocab_size if manifest.text else None,
        "image_codebook_size": manifest.image.codebook_size if manifest.image else None,
        "image_token_shift": export.image_shift,
        "bos_id": rule.bos,
        "eod_id": rule.eod,
        "image_begin_id": rule.image_begin,
        "image_end_id": rule.image_end,
        "text_tokenizer_sha256": manifest.text.sha256 if manifest.text else None,
        "shuffle_seed": export.shuffle_seed,
    }


def bytes_a_row(export: ExportConfig, manifest: Manifest) -> float:
    """About so many, of formats that store ids as they are; nobody knows how long texts are that were kept."""
    texts = _TEXT_BYTES if "text" in (export.columns or ()) else 0
    return ids_a_row(export, manifest) * bytes_an_id(export) + 16 + texts


def ids_a_row(export: ExportConfig, manifest: Manifest) -> float:
    return sum(manifest.parts.tokens) / max(1, manifest.num_samples) + 2


def _special(name: str, chosen: int | str, word: str, of_tokenizer: int | None) -> int | Literal["none"]:
    if chosen != word:
        return cast(int | Literal["none"], chosen)
    if of_tokenizer is None:
        raise UserError(f"export.{name}={word}: the tokenizer of the dataset has none; give an id, or none")
    return of_tokenizer

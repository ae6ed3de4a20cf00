"""Inputs in a form that can be sliced: JSON arrays, folders and tables become JSON lines."""

from __future__ import annotations

import hashlib
import importlib
import re
from dataclasses import replace
from pathlib import Path

from hpcdata.sources.base import InputFile, Options
from hpcdata.sources.custom import tables
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.documents import list_documents
from hpcdata.sources.folder import list_folder
from hpcdata.sources.inputs.formats import TABLE
from hpcdata.sources.json.array import flatten_json
from hpcdata.sources.pictures.metadata import flatten_csv
from hpcdata.sources.sets.settings import SOURCES as SETS
from hpcdata.sources.url_lists.listing import list_table

_PREPARED = {
    "folder": "listing",
    "array": "jsonl",
    "textarray": "text",
    "csv": "jsonl",
    "table": "jsonl",
    "coco": "jsonl",
    "vqa": "jsonl",
    "documentfolder": "documents",
    "urls": "jsonl",
}


def prepare(file: InputFile, folder: Path, *, without: str = "", options: Options | None = None) -> InputFile:
    """The input in a form that can be sliced: JSON arrays, folders and tables become JSON lines in `folder`.

    Other formats are returned as they are, and nothing is written. Raises UserError.
    """
    prepared = _PREPARED.get(file.format.partition(".")[0])
    if prepared is None:
        return file
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.label)[:64]
    out_path = str(folder / f"{name}-{hashlib.sha256(file.label.encode()).hexdigest()[:8]}.jsonl")
    if prepared == "listing":
        list_folder(file.path, out_path, without=without)
    elif file.format == "csv":
        flatten_csv(file, out_path)
    elif file.format.startswith(TABLE):
        tables.flatten_table(file, out_path, parsed(file.settings))
    elif file.format in SETS:
        importlib.import_module(f"hpcdata.sources.sets.{file.format}").flatten(file, out_path)
    elif file.format == "urls":
        list_table(file, out_path, url_field=options.url_field if options else None, without=without)
    elif prepared == "documents":
        list_documents(file.path, out_path, without=without)
    else:
        flatten_json(file, out_path)
    return replace(file, path=out_path, format=prepared)

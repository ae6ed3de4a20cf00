"""Which JSON belongs to which set: a CSV with the columns `folder_name` and `json_file`, such as `JSON_Mapping.csv`.

    folder_name,json_file
    "ai2d(cauldron,llava_format)","ai2d_cauldron_llava_format_2434.json"

A set that it does not name has `FOLDER.json`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from hpcdata.base.errors import UserError

FILE_NAME = "JSON_Mapping.csv"
FOLDER, JSON = "folder_name", "json_file"


def read_mapping(path: Path) -> dict[str, str]:
    """Folder -> file name. Raises UserError, with the line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _rows(csv.DictReader(file, strict=True), path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV in UTF-8: {error}") from None


def _rows(reader: csv.DictReader[str], path: Path) -> dict[str, str]:
    names = [name.strip() for name in reader.fieldnames or ()]
    if not {FOLDER, JSON} <= set(names):
        raise UserError(f"{path} begins with {', '.join(names) or 'nothing'}: expected the columns {FOLDER},{JSON}")
    reader.fieldnames = names
    found = dict[str, str]()
    for row in reader:
        folder, name, where = (row[FOLDER] or "").strip(), (row[JSON] or "").strip(), f"{path}, line {reader.line_num}"
        if not folder or not name or None in row:
            raise UserError(f"{where}: expected {FOLDER},{JSON}; quote a name with a comma in it")
        if "/" in folder or "/" in name or not name.endswith((".json", ".jsonl")):
            raise UserError(f"{where}: {folder}, {name}: expected a folder's name and that of a .json or .jsonl in it")
        if found.setdefault(folder, name) != name:
            raise UserError(f"{where}: {folder} has {found[folder]} already, and {name} here")
    return found

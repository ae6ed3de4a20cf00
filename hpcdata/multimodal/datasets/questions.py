"""Questions about pictures as challenges publish them: one JSON object, whose list `data` has an object a question.

    QuestionsDataset("infographicsVQA_train_v1.0.json", {"image": "image_local_name", "question": "question"},
                     image_root="images", style="info_qa")

The pictures are named by their paths below `image_root`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample, Reason

_LIST = "data"


class QuestionsDataset(Dataset):
    """One example a question, in the order of the files, held in memory without pictures."""

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        fields: Mapping[str, str],
        *,
        image_root: str | os.PathLike[str],
        style: str | None = None,
        constants: Mapping[str, int] | None = None,
        sample: int | None = None,
    ) -> None:
        """fields: key of an example -> key of a question; what a question does not have is left out, as answers of a
        test split are. style, constants: of every example. sample: only so many of the first. Raises UserError for a
        file that is no such object.
        """
        self._fields, self._root, self._style = dict(fields), os.fspath(image_root), style
        self._constants = dict(constants or {})
        self._rows = [row for file in files for row in _rows(os.fspath(file))][:sample]

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        row = self._rows[item]
        if not isinstance(row, dict):
            raise BadSample(Reason.BAD_RECORD, f"question {item} is {type(row).__name__}, expected an object")
        found = {name: row[key] for name, key in self._fields.items() if row.get(key) is not None}
        if "question" not in found:
            raise BadSample(Reason.BAD_RECORD, f"question {item} has no {self._fields['question']}")
        found["image"] = PictureFile(os.path.join(self._root, self._name(item, found.get("image"))))
        found |= self._constants
        return found if self._style is None else {**found, "style": self._style}

    def fingerprint(self) -> str:
        """By what the questions say."""
        how = [self._fields, self._style, *([self._constants] if self._constants else [])]
        return fingerprint_of("QuestionsDataset", self._rows, *how)

    def _name(self, item: int, name: Any) -> str:
        if not isinstance(name, str) or not name:
            raise BadSample(Reason.MISSING_IMAGE, f"question {item} has no {self._fields['image']}")
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
            raise BadSample(Reason.BAD_RECORD, f"question {item}: its picture {name!r} is not below {self._root}")
        return name


def _rows(path: str) -> list[Any]:
    try:
        with open(path, "rb") as file:
            values = orjson.loads(file.read())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    rows = values.get(_LIST) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise UserError(f"{path} is no object with a list {_LIST}, as questions are published")
    return rows

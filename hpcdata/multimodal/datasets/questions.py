"""Questions about pictures as challenges publish them: JSON with an object a question, and pictures by their names.

    QuestionsDataset("infographicsVQA_train_v1.0.json", {"image": "image_local_name", "question": "question"},
                     image_root="images", style="info_qa")

The pictures are named by their paths below `image_root`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.json.questions import QuestionFile

BESIDE = "{folder}"
_GAP = re.compile(r"\{(\w+)(?::0(\d{1,2})d)?\}")


class QuestionsDataset(Dataset):
    """One example a question, in the order of the files, read where they lie. Safe in threads and in workers."""

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        fields: Mapping[str, str],
        *,
        image_root: str | os.PathLike[str],
        list_name: str = "data",
        words: Mapping[str, str] | None = None,
        style: str | None = None,
        constants: Mapping[str, int] | None = None,
        without: str = "",
        index_dir: str | os.PathLike[str] | None = None,
        sample: int | None = None,
    ) -> None:
        """fields: key of an example -> key of a question; what a question does not have is left out, as answers of a
        test split are. That of `image` may have gaps, `png/{image_index}.png` or `{image_id:012d}.jpg`. image_root:
        one that begins with `{folder}` is that of the file of questions. list_name: of the list in the file's object;
        empty: the file is a list, or an object of questions by `{key}`; `NAME.{key}`: such an object in the file's
        object. words: of answers that are numbers, `{"0": "No"}`. style, constants: of every example. without: of
        objects by keys, questions in which this is true are left out, `num_left_out`. index_dir: where is kept what
        was found in large files, so that they open at once the next time. sample: only so many of the first.

        Raises UserError for another file.
        """
        self._fields, self._root, self._style = dict(fields), os.fspath(image_root), style
        self._constants, self._words, self._list_name = dict(constants or {}), dict(words or {}), list_name
        self._files, left = list[QuestionFile](), sample
        for file in files:
            kept = None if index_dir is None else Path(index_dir)
            self._files.append(QuestionFile(os.fspath(file), list_name, left, without=without, index_dir=kept))
            left = None if left is None else left - len(self._files[-1])
        self.num_left_out = sum(file.num_left_out for file in self._files)
        self._ends = np.cumsum([len(file) for file in self._files], dtype=np.int64)
        if missing := [name for name in ("image", "question") if name not in self._fields]:
            raise UserError(f"fields of questions have no {missing[0]}: it says which key of a question has it")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        which = int(np.searchsorted(self._ends, item, side="right"))
        file = self._files[which]
        number = item - int(self._ends[which] - len(file))
        row, where = file.get(number), f"{file.path}: question {number}"
        found = {name: row[key] for name, key in self._fields.items() if row.get(key) is not None}
        if "question" not in found:
            raise BadSample(Reason.BAD_RECORD, f"{where} has no {self._fields['question']}")
        if self._words and "answer" in found:
            found["answer"] = self._word(found["answer"], where)
        root = self._root
        if root.startswith(BESIDE):
            root = os.path.dirname(file.path) + root.removeprefix(BESIDE)
        found["image"] = PictureFile(os.path.join(root, _name(row, self._fields["image"], root, where)))
        found |= self._constants
        return found if self._style is None else {**found, "style": self._style}

    def fingerprint(self) -> str:
        """By what the questions say."""
        how = [self._fields, self._style, self._constants, self._words, self._list_name]
        return fingerprint_of("QuestionsDataset", [file.digest for file in self._files], *how)

    def _word(self, answer: object, where: str) -> str:
        if str(answer) not in self._words:
            key, known = self._fields["answer"], ", ".join(self._words)
            raise BadSample(Reason.BAD_RECORD, f"{where} has {key} {answer!r}, expected one of {known}")
        return self._words[str(answer)]


def _name(row: Mapping[str, Any], wanted: str, root: str, where: str) -> str:
    """Of the picture, below its folder."""

    def filled(gap: re.Match[str]) -> str:
        value = row.get(gap[1])
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise BadSample(Reason.MISSING_IMAGE, f"{where} has no {gap[1]}")
        if gap[2] is None:
            return str(value)
        if not str(value).isdecimal():
            raise BadSample(Reason.BAD_RECORD, f"{where} has {gap[1]} {value!r}, expected a number")
        return str(value).zfill(int(gap[2]))

    name = _GAP.sub(filled, wanted) if _GAP.search(wanted) else row.get(wanted)
    if not isinstance(name, str) or not name:
        raise BadSample(Reason.MISSING_IMAGE, f"{where} has no {wanted}")
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name:
        raise BadSample(Reason.BAD_RECORD, f"{where}: its picture {name!r} is not below {root}")
    return name

"""What is known of a named data set: its names, where it comes from, what it holds, how it is read.

An entry is one YAML file (`entries/NAME.yaml`, and folders of the user's own). What nobody could check where the entry
was written stands in `unchecked`: nothing is said to be known that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Access = Literal["open", "gated", "manual", "private", "not published", "script only"]
ACCESS: dict[Access, str] = {
    "open": "anybody can fetch it",
    "gated": "its page asks for consent: accept there, then export HF_TOKEN",
    "manual": "a person has to fetch it: see its steps",
    "private": "its makers keep it to themselves",
    "not published": "documents name it, and it is nowhere",
    "script only": "the hub has a Python script and no data, which datasets 4 and later refuse",
}


@dataclass(frozen=True, kw_only=True)
class HubTree:
    """Files of a repository of data sets on the hub. include, exclude: patterns (`*`, `**`, `?`); none: all files."""

    repo: str
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    folder: str = ""
    """Below that of the set."""


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file at an address. path: below the folder of the set."""

    url: str
    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class UrlList:
    """Pictures by address: columns of the tables that the hub tree brings, as the stage `fetch` takes them."""

    tables: tuple[str, ...]
    url: str
    sha256: str | None = None
    folder: str


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How its examples are read. fields: of `rows` and `questions`, key of an example -> column or key; of `records`,
    options of a `SourceDataset`. `image_root` (of one split: `image_root.train`) is below the folder of the set, of
    `records` and `questions`; `{folder}` is that of a file of `questions`. list_name: of the list of questions in the
    object of a file, `NAME.{key}` of an object of questions by keys; empty: the file is a list, or has questions by
    keys. without: questions by keys in which this is true are left out. words: of their answers that are numbers. ids:
    split -> list of the names, without endings, of those of its files that belong to the split; a split without a list
    has the files that are in none.
    each: of `rows` with several annotations, key of one -> column of lists, or `COLUMN.FIELD` of what it lists.
    constants: of every example of `rows` and `questions`, such as `point_scale`. style: of `rows`, `{folder}` in it is
    the name of a file's folder.
    """

    kind: Literal["rows", "records", "questions"]
    fields: Mapping[str, str]
    style: str | None = None
    list_name: str = "data"
    each: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, int] = field(default_factory=dict)
    without: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """aliases: other names of the same; variants: names of other ways to read it. folder: below the folder of all sets.
    needs: patterns of what a person puts there. unpack: pattern of archives -> folder that their files go to.
    splits: name -> patterns of its files; rows: how many examples it has. size: bytes, roughly.
    """

    name: str
    title: str
    folder: str
    licence: str
    aliases: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    also_in: tuple[str, ...] = ()
    access: Access = "open"
    hub: tuple[HubTree, ...] = ()
    files: tuple[WebFile, ...] = ()
    urls: tuple[UrlList, ...] = ()
    steps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    unpack: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    splits: Mapping[str, tuple[str, ...]]
    rows: Mapping[str, int] = field(default_factory=dict)
    reader: Reader | None = None
    note: str = ""
    unchecked: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases, *self.variants)

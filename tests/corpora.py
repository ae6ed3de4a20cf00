"""Real captioned pictures for tests, from Debian packages, as WebDataset tars or JSONL pairs.

    apt-get install openclipart-png openclipart-svg tuxpaint-stamps-default
    python tests/corpora.py OUT [--corpus openclipart|tuxpaint|all] [--format tar|jsonl] [--limit N] [--per-tar 500]

openclipart (public domain): every PNG whose SVG twin says in its RDF metadata that it is public domain, and has a
title; the caption is title, description and keywords. Among them are a handful of decompression bombs, pictures of
a few pixels, palettes, grey and alpha: they stay in, because real input has them.
tuxpaint (GPL-2, so it is read where it is installed and never copied into this repository): PNG stamps with the
first line of their .txt, which is the English caption.

The output depends on the installed packages alone: sorted keys, picture bytes verbatim, no times or owners in tars.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import re
import struct
import sys
import tarfile
import xml.parsers.expat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

OPENCLIPART = Path("/usr/share/openclipart")
TUXPAINT = Path("/usr/share/tuxpaint/stamps")
MAX_SVG_BYTES = 64 * 2**20
BOOKKEEPING = re.compile(r"|hash|unsorted|0x[0-9a-f]+")
"""Keywords that say something about openclipart's own book-keeping, not about the picture."""
SEPARATOR = "|"
"""What expat puts between the namespace and the name of an element."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A captioned picture. `key` is a WebDataset key: unique in its corpus, of [A-Za-z0-9_/-] only."""

    key: str
    image: Path
    caption: str
    title: str


@dataclass(kw_only=True)
class Metadata:
    """What the first `cc:Work` of an SVG says about the picture."""

    title: str = ""
    description: str = ""
    keywords: list[str] = field(default_factory=list)
    license: str = ""

    @property
    def public_domain(self) -> bool:
        return "publicdomain" in self.license.lower().replace(" ", "")

    @property
    def caption(self) -> str:
        """`Title. Description. Keywords: a, b.`, without what is empty or said twice."""
        sentences = [self.title]
        if self.description.rstrip(".").lower() != self.title.rstrip(".").lower():
            sentences.append(self.description)
        words = [word.replace("_", " ") for word in self.keywords if not BOOKKEEPING.fullmatch(word)]
        if words:
            sentences.append("Keywords: " + ", ".join(words))
        return " ".join(text if text[-1] in ".!?" else f"{text}." for text in sentences if text)


def available(corpus: str) -> bool:
    """Whether the corpus's packages are installed."""
    return {"openclipart": OPENCLIPART / "svg", "tuxpaint": TUXPAINT}[corpus].is_dir()


def pairs(corpus: str) -> list[Pair]:
    """All captioned pictures of `openclipart` or `tuxpaint`, sorted by key; links are listed once, as their target."""
    found = {"openclipart": _openclipart, "tuxpaint": _tuxpaint}[corpus]()
    by_key: dict[str, Pair] = {}
    for pair in sorted(found, key=lambda pair: str(pair.image)):
        key = next(key for key in _numbered(pair.key) if key not in by_key)
        by_key[key] = replace(pair, key=key)
    return [by_key[key] for key in sorted(by_key)]


def read_metadata(svg: bytes) -> Metadata | None:
    """The metadata of an SVG, or None: broken before it ends, with entities of its own, or too large.

    The parser stops behind the metadata, so that a drawing broken later still counts; expat fetches nothing.
    """
    if len(svg) > MAX_SVG_BYTES:
        return None
    reader = _MetadataReader()
    try:
        reader.parser.Parse(svg, True)
    except _EndOfMetadataError:
        return reader.metadata
    except (_EntityError, xml.parsers.expat.ExpatError):
        return None
    return None


def num_pixels(png: Path) -> int:
    """What the header of a PNG promises, without decoding."""
    with open(png, "rb") as file:
        width, height = struct.unpack(">16x2I", file.read(24))
    return width * height


def write_tars(selected: Sequence[Pair], folder: Path, name: str, per_tar: int = 500) -> list[Path]:
    """WebDataset tars `NAME-00000.tar` ... of `key.png` and `key.txt` members."""
    paths = []
    for first in range(0, len(selected), per_tar):
        path = folder / f"{name}-{first // per_tar:05d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for pair in selected[first : first + per_tar]:
                add_member(tar, f"{pair.key}.png", pair.image.read_bytes())
                add_member(tar, f"{pair.key}.txt", pair.caption.encode())
        paths.append(path)
    return paths


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file whose header holds nothing of this machine or this moment."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def write_jsonl(selected: Iterable[Pair], path: Path) -> Path:
    """Lines of `{"image_path": ..., "text_prompt": ...}`, pointing at the pictures where they are installed."""
    with open(path, "w", encoding="utf-8") as file:
        for pair in selected:
            record = {"image_path": str(pair.image), "text_prompt": pair.caption}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


class _EndOfMetadataError(Exception):
    pass


class _EntityError(Exception):
    pass


class _MetadataReader:
    """Collects the text of the interesting elements, and raises _EndOfMetadataError behind them."""

    def __init__(self) -> None:
        self.metadata = Metadata()
        self.path: list[str] = []
        self.text: list[str] = []
        self.parser = xml.parsers.expat.ParserCreate(namespace_separator=SEPARATOR)
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self.text.append
        self.parser.EntityDeclHandler = self._refuse

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.path.append(name.rsplit(SEPARATOR, 1)[-1])
        self.text.clear()
        if self.path[-2:] == ["Work", "license"]:
            resources = [value for key, value in attributes.items() if key.endswith(f"{SEPARATOR}resource")]
            self.metadata.license = "".join(resources)

    def _end(self, name: str) -> None:
        text = " ".join("".join(self.text).split())
        if self.path[-2:] == ["Work", "title"]:
            self.metadata.title = text
        elif self.path[-2:] == ["Work", "description"]:
            self.metadata.description = text
        elif self.path[-1] == "li" and "subject" in self.path:
            self.metadata.keywords.append(text)
        elif self.path[-1] == "Work":
            raise _EndOfMetadataError
        self.path.pop()
        self.text.clear()

    def _refuse(self, *_: object) -> None:
        raise _EntityError


def _openclipart() -> Iterator[Pair]:
    for image in _pictures(OPENCLIPART / "png"):
        name = image.relative_to(OPENCLIPART / "png").with_suffix("")
        svg = OPENCLIPART / "svg" / f"{name}.svg"
        metadata = read_metadata(svg.read_bytes()) if svg.is_file() else None
        if metadata is not None and metadata.title and metadata.public_domain:
            yield Pair(key=_key(str(name)), image=image, caption=metadata.caption, title=metadata.title)


def _tuxpaint() -> Iterator[Pair]:
    for image in _pictures(TUXPAINT):
        text = image.with_suffix(".txt")
        caption = text.read_text("utf-8", errors="replace").split("\n", 1)[0].strip() if text.is_file() else ""
        if caption:
            name = str(image.relative_to(TUXPAINT).with_suffix(""))
            yield Pair(key=_key(name), image=image, caption=caption, title=caption)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png") if path.is_file() and not path.is_symlink())


def _key(name: str) -> str:
    """No dots: WebDataset takes what follows the first one for the extension."""
    return re.sub(r"[^A-Za-z0-9_/-]", "-", name)


def _numbered(key: str) -> Iterator[str]:
    yield key
    yield from (f"{key}-{number}" for number in itertools.count(2))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", choices=["openclipart", "tuxpaint", "all"], default="all")
    parser.add_argument("--format", choices=["tar", "jsonl"], default="tar")
    parser.add_argument("--limit", type=int, help="only the first pairs of each corpus")
    parser.add_argument("--per-tar", type=int, default=500)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for corpus in ["openclipart", "tuxpaint"] if options.corpus == "all" else [options.corpus]:
        if not available(corpus):
            parser.error(f"{corpus} is not installed: see apt-get in the description (-h)")
        selected = pairs(corpus)[: options.limit]
        if options.format == "tar":
            paths = write_tars(selected, options.out, corpus, options.per_tar)
        else:
            paths = [write_jsonl(selected, options.out / f"{corpus}.jsonl")]
        print(f"{corpus}: {len(selected)} pairs in {len(paths)} files", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Raw inputs whose bytes are the same on every machine and with every version of every library.

Sizes of inputs enter a plan's fingerprint, so nothing here is compressed or encoded by a library (see `stored`). These
files were made once and committed:

    turned.jpg, wide.jpg    240 x 176 pixels, on their side by EXIF; 320 x 160 in gray; rings of which `data.jpeg_draft`
                            makes other codes; by Pillow, without chroma subsampling
    documents.parquet       two row groups, a null, a blank and a NUL; by pyarrow
    tokenizer.model         350 pieces with byte fallback, trained by sentencepiece
    begun/                  the output of a run that was stopped in its process as SIGTERM stops one, by `StopAfter`
                            of tests/smallruns.py; /FOLDER stands for where it was
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Container, Sequence
from pathlib import Path

import hpcdata
from tests.kept.stored import Member, gzip_of, lines_of, png_of, tar_of, zstd_of

HERE = Path(__file__).parent
MTIME_S = 1_600_000_000


def embedded(name: str) -> Path:
    """A file that comes with hpcdata, wherever in the package it lies."""
    return next(Path(hpcdata.__file__).parent.rglob(name))


def pictures() -> list[bytes]:
    """The first 24 pictures of the quickstart, PNGs of 176 x 176 pixels with a palette."""
    with tarfile.open(embedded("quickstart.tar")) as tar:
        members = [member for member in tar if member.name.endswith(".png")]
        return [tar.extractfile(member).read() for member in members[:24]]


def write_all(folder: Path) -> None:
    """Writes every input of the tests."""
    (folder / "wids").mkdir(parents=True)
    (folder / "album/inner").mkdir(parents=True)
    (folder / "texts").mkdir()
    (folder / "hf").mkdir()
    found = pictures()
    _write_tars(folder, found)
    _write_records(folder, found)
    _write_album(folder / "album", found)
    _write_shapes(folder / "shapes.tar", found)
    _write_documents(folder)
    _write_tokenizers(folder / "hf")


def write_begun(folder: Path, *, encoded: Container[int] = ()) -> None:
    """The inputs of the run in `begun/`: a tar and an array. Samples of the tar in `encoded` get other bytes."""
    folder.mkdir(parents=True)
    found = pictures()
    members = [pair for number in range(8) for pair in _pair(f"{number}", found[number], caption(number))]
    members = [(name, bytes(len(data)) if int(name[0]) in encoded else data) for name, data in members]
    (folder / "begun.tar").write_bytes(tar_of(members, tarfile.USTAR_FORMAT))
    (folder / "begun.png").write_bytes(found[8])
    pairs = [{"image": "begun.png", "text": caption(number)} for number in range(3)]
    (folder / "begun.json").write_text(json.dumps(pairs), "utf-8")
    for path in folder.iterdir():
        os.utime(path, (MTIME_S, MTIME_S))


def caption(number: int) -> str:
    words = ("a red boat", "on the grün sea", "with 3 cats", "and </s> two <image>s", "\N{GRINNING FACE} at night")
    return " ".join(words[: number % len(words) + 1]) + f", number {number}"


def _write_tars(folder: Path, found: Sequence[bytes]) -> None:
    """a.tar: all that a tar may hold, damaged and cut short; b.tar.gz; two tars that an index lists."""
    good = [pair for number in range(3) for pair in _pair(f"{number:03d}", found[number], caption(number))]
    again = [*_pair("000", found[0], caption(0)), *_pair("000", found[3], "other bytes"), *_pair("000", found[4], "x")]
    tail = [*_pair("tail", found[10], "stands behind the damage"), ("cut.png", found[11])]
    before = tar_of([*good, *_odd_members(found), *_bad_members(), *again], tarfile.GNU_FORMAT, ends=False)
    cut = tar_of(tail, tarfile.GNU_FORMAT, ends=False)[:-2048]
    (folder / "a.tar").write_bytes(before + b"no tar header".ljust(512, b"?") * 2 + cut)
    long_name = f"{'very-' * 30}long/grün"
    members = [pair for number in range(4) for pair in _pair(f"b/{number}", found[12 + number], caption(number + 3))]
    members += _pair(long_name, found[16], "its name stands in a PAX header")
    (folder / "b.tar.gz").write_bytes(gzip_of(tar_of(members, tarfile.PAX_FORMAT)))
    for name, first in (("0", 17), ("1", 20)):
        members = [pair for number in range(first, first + 3) for pair in _pair(f"w{number}", found[number], "caption")]
        (folder / f"wids/{name}.tar").write_bytes(tar_of(members, tarfile.USTAR_FORMAT))
    shards = [{"url": f"{name}.tar", "nsamples": 3} for name in "01"]
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shards}
    (folder / "wids/index.json").write_text(json.dumps(index), "utf-8")


def _odd_members(found: Sequence[bytes]) -> list[Member]:
    """Members that are read, or left out, by rules of their own."""
    return [
        ("./deep/er/grün.PNG", found[5]),
        ("./deep/er/grün.json", json.dumps({"caption": "from a json, grün"}).encode()),
        ("../up.png", found[6]),
        ("../up.caption", b"\xef\xbb\xbfbehind a byte order mark\r\n"),
        ("two.seg.txt", b"no text of the pair"),
        ("two.jpg", (HERE / "turned.jpg").read_bytes()),
        ("two.txt", b"a jpeg, turned by EXIF"),
        (".hidden.png", found[7]),
        ("__meta__/info.json", b"{}"),
        ("nodot", b"nothing"),
        *_pair("n" * 120, found[8], "its name is a member of its own"),
    ]


def _bad_members() -> list[Member]:
    small = png_of(2, 2, bytes(12), "rgb")
    return [
        ("only.png", small),
        ("text.txt", b"and no picture"),
        *_pair("empty", b"", "an empty picture"),
        *_pair("noise", b"this is no picture", "unreadable"),
        *_pair("huge", png_of(1000, 1000, b"", "rgb"), "promises too many pixels"),
        *_pair("bytes", bytes(50_000), "too many bytes"),
        ("latin.png", small),
        ("latin.txt", "gr\xfcn".encode("latin-1")),
        *_pair("blank", small, " \t\n"),
        *_pair("nul", small, "a\0b"),
        *_pair("long", small, "word " * 9000),
        ("list.png", small),
        ("list.json", b"[1, 2]"),
    ]


def _write_records(folder: Path, found: Sequence[bytes]) -> None:
    """Pairs and conversations as JSON lines, pairs as one array; pictures lie beside them."""
    (folder / "pictures").mkdir()
    for number in range(6):
        (folder / f"pictures/{number}.png").write_bytes(found[number])
    pairs = [{"image_path": f"pictures/{number}.png", "text_prompt": caption(number)} for number in range(4)]
    bad = [
        b"",
        b"{broken",
        b'{"text": "\xff"}',
        b"[1]",
        b'{"image": 3, "text": "x"}',
        b'{"text": "%s"}' % bytes(50_000).replace(b"\0", b"x"),
    ]
    others = [{"text": "no picture"}, {"image": "pictures/later.png", "text": "comes later"}, {"text": ""}, {"id": 1}]
    (folder / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + lines_of(pairs) + b"\n".join(bad) + b"\n" + lines_of(others))
    zipped = [{"image": "pictures/5.png", "caption": f"pair {number}"} for number in range(3)]
    (folder / "zipped.jsonl.gz").write_bytes(gzip_of(lines_of(zipped)))
    (folder / "talks.jsonl").write_bytes(lines_of(_talks()).rstrip(b"\n"))
    array = [*pairs[:3], {"image": "pictures/4.png", "text": 'brackets ] } and "quotes" \\ in a text'}, 7]
    (folder / "array.json").write_text(json.dumps(array, indent=2, ensure_ascii=False), "utf-8")


def _talks() -> list[object]:
    ask = {"from": "human", "value": "<image>\nWhat is <image> beside it?"}
    answer = {"from": "gpt", "value": "A boat, and then a cat."}
    both = ["pictures/0.png", "pictures/1.png"]
    system = {"from": "system", "value": "Be short."}
    return [
        {"id": "two", "image": both, "conversations": [system, ask, answer]},
        {"id": "one", "image": "pictures/2.png", "conversations": [{"from": "user", "value": "No marker."}, answer]},
        {
            "id": "none",
            "conversations": [{"from": "human", "value": "Only text?"}, {"from": "assistant", "value": "Yes"}],
        },
        {"id": "markers", "image": "pictures/2.png", "conversations": [ask, answer]},
        {"id": "nobody", "conversations": [{"from": "robot", "value": "beep"}]},
        {"id": "silent", "conversations": [{"from": "human", "value": " "}]},
        {"id": "end", "image": "pictures/3.png", "conversations": [{"from": "human", "value": "See <image>"}, answer]},
    ]


def _write_album(folder: Path, found: Sequence[bytes]) -> None:
    """A folder of pictures with texts of the same name; some have none, and one text has no picture."""
    for number in range(3):
        (folder / f"{number}.png").write_bytes(found[number + 9])
        (folder / f"{number}.txt").write_text(caption(number + 7), "utf-8")
    (folder / "inner/both.jpg").write_bytes((HERE / "wide.jpg").read_bytes())
    (folder / "inner/both.png").write_bytes(found[13])
    (folder / "inner/both.json").write_text(json.dumps({"text": "one text for two pictures"}), "utf-8")
    (folder / "inner/alone.png").write_bytes(found[14])
    (folder / "inner/words.txt").write_text("no picture", "utf-8")
    (folder / ".hidden.png").write_bytes(found[15])


def _write_shapes(path: Path, found: Sequence[bytes]) -> None:
    """Pictures of many shapes and modes."""
    ramp = bytes(index * 7 % 256 for index in range(40_000))
    palette = bytes(range(0, 240, 4))
    made = {
        "wide": png_of(90, 40, ramp, "rgb"),
        "tall": png_of(31, 97, ramp, "rgb"),
        "strip": png_of(3, 200, ramp, "rgb"),
        "point": png_of(1, 1, ramp, "rgb"),
        "glass": png_of(64, 48, ramp, "rgba"),
        "fog": png_of(48, 64, ramp, "gray+alpha"),
        "gray": png_of(50, 50, ramp, "gray"),
        "deep": png_of(40, 60, ramp, "gray", bits=16),
        "ink": png_of(56, 33, ramp, "gray", bits=1),
        "indexed": png_of(33, 66, bytes(value % 20 for value in ramp), "palette", palette=palette, alpha=b"\0\x80"),
        "paper": b"P6 70 30 255\n" + ramp[:6300],
    }
    jpegs = [("turned.jpg", (HERE / "turned.jpg").read_bytes()), ("wide-gray.jpg", (HERE / "wide.jpg").read_bytes())]
    members = [(f"{name}.{'ppm' if name == 'paper' else 'png'}", data) for name, data in made.items()]
    members += [*jpegs, ("square.png", found[0])]
    texts = [(f"{name.partition('.')[0]}.txt", caption(number).encode()) for number, (name, _) in enumerate(members)]
    both = [member for pair in zip(members, texts, strict=True) for member in pair]
    path.write_bytes(tar_of(both, tarfile.USTAR_FORMAT))


def _write_documents(folder: Path) -> None:
    good = [{"text": f"Document {number}. " + caption(number) * (number + 1)} for number in range(7)]
    bad = [
        b'{"text": 5}',
        b"{broken",
        b'{"content": " "}',
        b'{"text": "a\\u0000b"}',
        b'{"image": "a.png", "text": "x"}',
    ]
    notes = lines_of(good) + b"\n".join(bad) + b"\n" + lines_of([{"content": "the last", "title": "A title"}])
    (folder / "notes.jsonl").write_bytes(notes)
    (folder / "notes.json.zst").write_bytes(zstd_of(notes)[:-9])
    (folder / "notes.json.gz").write_bytes(gzip_of(notes))
    (folder / "array-of-notes.json").write_text(json.dumps(good[:3]), "utf-8")
    (folder / "titles.jsonl").write_bytes(
        lines_of({"title": caption(number) * 2, "text": "not read"} for number in range(9))
    )
    (folder / "note.txt").write_bytes(b"\xef\xbb\xbfOne file,\r\none document.\r\n")
    (folder / "note.txt.gz").write_bytes(gzip_of("Ein Text, grün.".encode()))
    (folder / "note.txt.zst").write_bytes(zstd_of(b"\xff is no text"))
    (folder / "texts/1.txt").write_text("first of a folder", "utf-8")
    (folder / "texts/2.txt").write_text("", "utf-8")
    (folder / "notes.parquet").write_bytes((HERE / "documents.parquet").read_bytes())


def _write_tokenizers(folder: Path) -> None:
    """A folder as Hugging Face saves them: both engines, and a token behind the vocabulary."""
    (folder / "tokenizer.json").write_bytes(embedded("tokenizer.json").read_bytes())
    (folder / "tokenizer.model").write_bytes((HERE / "tokenizer.model").read_bytes())
    (folder / "added_tokens.json").write_text(json.dumps({"<pad>": 350}), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": "<pad>", "eos_token": {"content": "</s>"}}), "utf-8"
    )


def _pair(name: str, picture: bytes, text: str) -> list[Member]:
    return [(f"{name}.png", picture), (f"{name}.txt", text.encode())]

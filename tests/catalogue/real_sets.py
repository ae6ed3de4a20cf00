"""Small sets in the layouts that the real ones have, as repositories of a hub that runs here."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))


def picture(number: int, ending: str = "PNG") -> bytes:
    rows, columns = np.mgrid[: 40 + number, : 60 + number]
    pixels = np.stack([rows * 5 % 256, columns * 4 % 256, np.full_like(rows, number * 20 % 256)], axis=2)
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, ending)
    return out.getvalue()


def chart_qa(root: Path, *, rows: int = 5, damaged: int | None = None) -> None:
    """HuggingFaceM4/ChartQA: image, query, label (a list), human_or_machine; splits train, val, test."""
    for split in ("train", "val", "test"):
        images = [{"bytes": picture(n) if n != damaged else picture(n)[:60], "path": None} for n in range(rows)]
        table = pa.table(
            {
                "image": pa.array(images, _PICTURE),
                "query": [f"How high is bar {n} of {split}?" for n in range(rows)],
                "label": [[str(n)] for n in range(rows)],
                "human_or_machine": [n % 2 for n in range(rows)],
            }
        )
        _write(table, root / f"HuggingFaceM4/ChartQA/data/{split}-00000-of-00001.parquet", row_group_size=2)


def llava_pretrain(root: Path, *, rows: int = 4) -> None:
    """liuhaotian/LLaVA-Pretrain: one JSON array, and its pictures as a zip of folders."""
    folder = root / "liuhaotian/LLaVA-Pretrain"
    folder.mkdir(parents=True)
    records = []
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number in range(rows):
            name = f"{number % 2:05d}/{number:09d}.jpg"
            archive.writestr(name, picture(number, "JPEG"))
            turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"It is {number}."}]
            records.append({"id": f"{number:09d}", "image": name, "conversations": turns})
    (folder / "blip_laion_cc_sbu_558k.json").write_text(json.dumps(records))


def onevision(root: Path, names: tuple[str, ...] = ("ai2d(cauldron,llava_format)", "GeoQA+(MathV360K)")) -> None:
    """lmms-lab/LLaVA-OneVision-Data: a folder a set, named with brackets, commas and signs."""
    for place, name in enumerate(names):
        images = [{"bytes": picture(n + place), "path": None} for n in range(3)]
        turns = [
            [{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": f"{name} {n}"}] for n in range(3)
        ]
        table = pa.table(
            {
                "id": [f"{place}/{n}" for n in range(3)],
                "image": pa.array(images, _PICTURE),
                "conversations": pa.array(turns, _TURNS),
                "data_source": [name] * 3,
            }
        )
        _write(table, root / f"lmms-lab/LLaVA-OneVision-Data/{name}/train-00000-of-00001.parquet")


def pixmo_cap(root: Path, url: Callable[[str], str], *, rows: int = 3) -> None:
    """allenai/pixmo-cap: addresses of pictures, captions, transcripts."""
    table = pa.table(
        {
            "image_url": [url(f"photos/{n}.png") for n in range(rows)],
            "caption": [f"A long caption of picture {n}." for n in range(rows)],
            "transcripts": [[f"so this is {n}"] for n in range(rows)],
        }
    )
    _write(table, root / "allenai/pixmo-cap/data/train-00000-of-00001.parquet")
    _photos(root, rows)


def pixmo_count(root: Path, url: Callable[[str], str], *, rows: int = 3) -> None:
    """allenai/pixmo-count: addresses with their sha256, and points as older libraries store lists of structs."""
    for split in ("train", "validation", "test"):
        points = [{"x": [10.5 + k for k in range(n)], "y": [20.0 + k for k in range(n)]} for n in range(rows)]
        table = pa.table(
            {
                "image_url": [url(f"photos/{n}.png") for n in range(rows)],
                "image_sha256": [hashlib.sha256(picture(n)).hexdigest() for n in range(rows)],
                "points": pa.array(points, pa.struct([(name, pa.list_(pa.float64())) for name in "xy"])),
                "count": list(range(rows)),
                "label": [f"bars of {split}"] * rows,
            }
        )
        _write(table, root / f"allenai/pixmo-count/data/{split}-00000-of-00001.parquet")
    _photos(root, rows)


def _photos(root: Path, rows: int) -> None:
    for number in range(rows):
        path = root / f"photos/{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number))


def cc3m(root: Path) -> None:
    """pixparse/cc3m-wds: tars of WebDataset."""
    for split in ("train", "validation"):
        path = root / f"pixparse/cc3m-wds/cc3m-{split}-0000.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number in range(3):
                for ending, data in (("jpg", picture(number, "JPEG")), ("txt", f"caption {number}".encode())):
                    info = tarfile.TarInfo(f"{number:09d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def _write(table: Any, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def vqa2(root: Path) -> None:
    """VQA v2 and COCO as their makers publish them: zips of JSON, zips of pictures."""
    for part, split, title in (("train2014", "Train", "train2014"), ("val2014", "Val", "val2014")):
        questions = [{"question_id": 9000 + n, "image_id": n, "question": f"How many {n}?"} for n in range(3)]
        answers = [
            {
                "question_id": 9000 + n,
                "image_id": n,
                "multiple_choice_answer": str(n),
                "answers": [{"answer": str(n), "answer_confidence": "yes", "answer_id": k} for k in range(10)],
            }
            for n in range(3)
        ]
        head = {"data_type": "mscoco", "data_subtype": part}
        name = f"v2_OpenEnded_mscoco_{part}_questions.json"
        _zip(root / f"v2_Questions_{split}_mscoco.zip", {name: json.dumps({**head, "questions": questions}).encode()})
        name = f"v2_mscoco_{part}_annotations.json"
        _zip(root / f"v2_Annotations_{split}_mscoco.zip", {name: json.dumps({**head, "annotations": answers}).encode()})
        pictures = {f"{part}/COCO_{part}_{n:012d}.jpg": picture(n, "JPEG") for n in range(3)}
        _zip(root / f"{title}.zip", {f"{part}/": b"", **pictures})


def _zip(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)

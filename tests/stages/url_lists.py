"""Lists of URLs of small pictures on a server that misbehaves, for tests of the stage `fetch`."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.net.misbehaving import Server
from tests.sources.source_files import write

FETCH = (
    *("stage=fetch", "text.tokenizer=null", "image.tokenizer=null", "data.n_train_samples=null"),
    *("fetch.allow_private=true", "fetch.host_rate=null", "fetch.connections=8"),
)


def jpeg(number: int) -> bytes:
    pixels = np.random.RandomState(number).randint(0, 255, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def row(server: Server, number: int, *faults: str, data: bytes | None = None) -> dict[str, object]:
    """As PixMo has them: the sha256 is that of the picture, whatever the server gives."""
    picture = jpeg(number)
    url = server.put(f"/{number}.jpg", picture if data is None else data, *faults, kind="image/jpeg")
    sha256 = hashlib.sha256(picture).hexdigest()
    return {"image_url": url, "image_sha256": sha256, "caption": f"the {number}", "number": number}


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    return write(path, "".join(json.dumps(item) + "\n" for item in rows).encode())

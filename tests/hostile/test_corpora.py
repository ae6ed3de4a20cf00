"""Pictures made to break decoders: all are written or rejected, in bounded memory.

pytest tests/hostile/test_corpora.py
Pillow's own test images come with its source distribution (pip download). Of openclipart, the largest pictures (its
decompression bombs) and every 40th go through; all 6,900 with HPCDATA_ALL_PICTURES=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import __version__

from hpcdata.media.kinds import IMAGE_EXTENSIONS
from tests import corpora
from tests.evidence import PICTURES, Evidence
from tests.hostile.test_hostile_run import run

pytestmark = pytest.mark.slow
PILLOWS_MAX_PIXELS = 89_478_485
"""What it sets by itself, and our limit by default; other tests of this process set another one."""


@pytest.fixture(scope="module")
def pillow_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the images in Pillow's sdist."""
    folder = tmp_path_factory.mktemp("pillow")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "pillow"]
    result = subprocess.run([*command, "-d", str(folder), f"pillow=={__version__}"], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"Pillow's sdist cannot be downloaded: {result.stderr[-200:]}")
    (sdist,) = folder.glob("*.tar.gz")
    images = folder / "images"
    images.mkdir()
    with tarfile.open(sdist) as tar:
        for member in tar:
            if member.isfile() and "/Tests/images/" in member.name:
                name = member.name.split("/Tests/images/")[1].replace("/", "-")
                content = tar.extractfile(member)
                assert content is not None
                suffix = name.rpartition(".")[2]
                is_known = suffix.lower() in IMAGE_EXTENSIONS
                kept = name if is_known else f"{name}.png"  # by its content, whatever it is
                (images / kept.replace(".", "_", kept.count(".") - 1)).write_bytes(content.read())
    return images


def test_pillows_own_images(tmp_path: Path, evidence: Evidence, pillow_images: Path) -> None:
    num_files = len(list(pillow_images.iterdir()))
    assert num_files > 700
    counts, reasons = run(tmp_path, pillow_images, "text.tokenizer=none", "data.source=folder")
    evidence(PICTURES, counts.inputs, tmp_path / "run")
    assert counts.inputs == counts.written + counts.rejected.total() == num_files
    assert counts.written > 600
    assert set(reasons.values()) <= {"unreadable_image", "oversized_image", "truncated", "empty_image"}


@pytest.mark.skipif(not corpora.available("openclipart"), reason="needs openclipart-png and openclipart-svg")
def test_openclipart_with_its_bombs(tmp_path: Path, evidence: Evidence) -> None:
    pairs = corpora.pairs("openclipart")
    if not os.environ.get("HPCDATA_ALL_PICTURES"):
        largest = sorted(pairs, key=lambda pair: -corpora.num_pixels(pair.image))[:12]
        pairs = sorted({*largest, *pairs[::40]}, key=lambda pair: pair.key)
    bombs = [pair for pair in pairs if corpora.num_pixels(pair.image) > PILLOWS_MAX_PIXELS]
    assert bombs
    counts, _ = run(tmp_path, corpora.write_jsonl(pairs, tmp_path / "x.jsonl"), "data.outside_images=read")
    evidence(PICTURES, counts.inputs, tmp_path / "run")
    assert counts.inputs == len(pairs)
    assert counts.rejected["oversized_image"] == len(bombs)
    assert counts.written + counts.rejected.total() == len(pairs)

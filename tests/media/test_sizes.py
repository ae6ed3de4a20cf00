"""Pictures that keep their shapes: sizes, crops, grids, and training on them. pytest tests/media/test_sizes.py"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hpcdata import Buckets, Interleaved, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.cluster.finish import finish
from hpcdata.media import pixels
from hpcdata.media import sizes as buckets
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests import corpora
from tests.smallruns import StopAfter, small_config, small_run
from tests.trees import sha256_tree

RATIO = "data.max_aspect_ratio=2"
SHAPES = [(64, 64), (100, 50), (50, 100), (64, 60), (90, 30), (30, 90), (48, 64), (80, 41)]


@given(side=st.integers(1, 40), multiple=st.sampled_from([4, 8, 16]), ratio=st.floats(1, 8))
def test_sizes_are_of_about_one_area_and_come_in_both_directions(side, multiple, ratio):
    found = buckets.sizes(side * multiple, multiple, ratio)
    assert (side * multiple, side * multiple) in found
    assert len(set(found)) == len(found)
    assert list(found) == sorted(found, key=lambda size: size[0] / size[1])
    assert {(width, height) for height, width in found} == set(found)
    for height, width in found:
        assert height % multiple == width % multiple == 0
        area = (height // multiple) * (width // multiple)
        assert side * side - min(height, width) // multiple < area <= side * side
        assert max(height, width) <= ratio * min(height, width)


def test_the_usual_sizes():
    assert buckets.sizes(256, 16, None) == buckets.sizes(256, 16, 1.0) == ((256, 256),)
    wide = [(192, 336), (208, 304), (224, 288), (240, 272)]
    assert buckets.sizes(256, 16, 2) == (*wide, (256, 256), *((width, height) for height, width in reversed(wide)))


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1, 1, (256, 256)), (3, 4, (224, 288)), (9, 16, (192, 336)), (16, 9, (336, 192)), (1, 100, (192, 336))],
)
def test_a_picture_gets_the_nearest(height, width, size):
    assert buckets.nearest(height, width, buckets.sizes(256, 16, 2)) == size


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (48, 72), (56, 56)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_crop_is_the_middle_of_the_picture_resized_to_cover(shape, size):
    """A ramp along each side shows what was kept: all of one side, the middle of the other."""
    height, width = shape
    ramp = np.zeros((height, width, 3))
    ramp[:, :, 0] = (np.arange(width) + 0.5) / width * 255
    ramp[:, :, 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    buffer = io.BytesIO()
    Image.fromarray(ramp.round().astype(np.uint8)).save(buffer, "PNG")
    shown = pixels.load(buffer.getvalue(), sizes=(size,), max_pixels=10**6)
    assert shown.shape == (*size, 3)
    scale = max(size[0] / height, size[1] / width)
    for axis, length in ((1, width), (0, height)):
        kept = size[axis] / (length * scale)
        line = shown[:, :, 1 - axis].mean(axis=1 - axis)
        middle = slice(len(line) // 4, -(len(line) // 4))  # the ends are blurred into the crop
        expected = (0.5 + kept * ((np.arange(len(line)) + 0.5) / len(line) - 0.5)) * 255
        assert np.abs(line - expected)[middle].max() < 255 * 1.5 / min(length * scale, length)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures of several shapes with captions."""
    rng = np.random.default_rng(0)
    path = tmp_path / "in.tar"
    with corpora.tarfile.open(path, "w") as tar:
        for number in range(24):
            height, width = SHAPES[number % len(SHAPES)]
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(buffer, "PNG")
            corpora.add_member(tar, f"{number:03d}.png", buffer.getvalue())
            corpora.add_member(tar, f"{number:03d}.txt", f"picture {number}".encode())
    return path


def test_the_grid_of_each_picture_is_stored(tmp_path: Path, source: Path):
    small_run(tmp_path / "run", RATIO, source=source)
    known = buckets.sizes(32, 8, 2.0)
    expected = [tuple(side // 8 for side in buckets.nearest(*SHAPES[row % len(SHAPES)], known)) for row in range(24)]
    dataset = TokenDataset(tmp_path / "run", allow_tmp=True)
    spans = [next(span for span in dataset[row].spans if span.height) for row in range(24)]
    assert [(span.height, span.width) for span in spans] == expected
    assert [len(span.ids) for span in spans] == [height * width for height, width in expected]
    assert len(set(expected)) > 2


@pytest.mark.slow
def test_where_a_task_was_stopped_changes_nothing(tmp_path: Path, source: Path):
    small_run(tmp_path / "whole", RATIO, source=source)
    prepare(small_config(tmp_path / "stopped", RATIO, source=source))
    while run_task(tmp_path / "stopped", StopAfter(2)) is TaskOutcome.STOPPED:  # type: ignore[arg-type]
        pass
    assert sha256_tree(tmp_path / "stopped/shards") == sha256_tree(tmp_path / "whole/shards")


def test_a_loader_makes_batches_of_one_grid(tmp_path: Path, source: Path):
    plan = small_run(tmp_path / "run", RATIO, source=source)
    config = small_config(tmp_path / "run", RATIO, "finish.preview=preview.png", source=source)
    assert "batches in" in finish(tmp_path / "run", plan, config).loader
    assert (tmp_path / "run/preview.png").exists()
    dataset = TokenDataset(tmp_path / "run")
    with pytest.raises(UserError, match=r"needs one image grid in a batch.*use layout interleaved"):
        next(iter(TokenLoader(dataset, global_batch_size=24, layout="t2i", seed=0)))
    layout = Interleaved(max_length=64)
    loader = TokenLoader(dataset, global_batch_size=2, layout=layout, packing=Buckets(), num_epochs=1, seed=0)
    for batch in loader:
        grids = [
            {(span.height, span.width) for span in dataset[int(row)].spans if span.height}
            for row in batch["index"].flatten().tolist()
            if row >= 0
        ]
        assert all(grid == grids[0] for grid in grids)


@pytest.mark.parametrize("key", [RATIO, "data.sizes=[64x48]"])
def test_a_compiled_network_takes_one_size(tmp_path: Path, key: str):
    with pytest.raises(UserError, match=r"image\.compile=true needs pictures of one size: leave it, or data\."):
        prepare(small_config(tmp_path / "run", key, "image.compile=true"))


@pytest.mark.parametrize("name", buckets.NAMED)
def test_named_sizes_are_a_square_and_shapes_up_to_twice_as_wide_or_as_tall(name: str):
    found, side = buckets.named(name), int(name.removeprefix("multi"))
    assert (side, side) in found
    assert sorted(found) == sorted((width, height) for height, width in found)
    assert list(found) == sorted(found, key=lambda size: size[0] / size[1])
    for height, width in found:
        assert height % 32 == width % 32 == 0
        assert 0.9 * side**2 < height * width <= side**2
        assert max(height, width) <= 2 * min(height, width)


def test_a_run_takes_the_sizes_that_it_is_given_width_first(tmp_path: Path, source: Path):
    plan = small_run(tmp_path / "run", "data.sizes=[32x32,48x24]", source=source)
    assert plan.picture_batch_size == 1
    known = [(32, 32), (24, 48)]
    expected = [tuple(side // 8 for side in buckets.nearest(*SHAPES[row % len(SHAPES)], known)) for row in range(24)]
    dataset = TokenDataset(tmp_path / "run", allow_tmp=True)
    assert [(dataset[row].spans[-1].height, dataset[row].spans[-1].width) for row in range(24)] == expected
    assert len(set(expected)) == 2
    assert dataset.manifest.layout.resolution is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ("multi9", "'multi9' is no size: expected multi512, multi768 or WIDTHxHEIGHT"),
        ("[32x0]", "'32x0' is no size"),
        ("[32x32,32x32]", "expected different sizes"),
        ("[]", "at least one"),
        ("[32x36]", r"data\.sizes=36 is not a multiple of 8"),
        ("[32x32] data.max_aspect_ratio=2", "data.max_aspect_ratio and data.sizes both say"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path: Path, sizes: str, message: str):
    with pytest.raises(UserError, match=message):
        prepare(small_config(tmp_path / "run", *f"data.sizes={sizes}".split()))


@pytest.mark.parametrize("ratio", ["0.5", "0", "inf", "-2"])
def test_impossible_ratios_are_refused(tmp_path: Path, ratio: str):
    with pytest.raises(UserError, match=r"data\.max_aspect_ratio=.*expected 1 or more"):
        prepare(small_config(tmp_path / "run", f"data.max_aspect_ratio={ratio}"))

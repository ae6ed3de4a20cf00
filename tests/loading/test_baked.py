"""Rows that were baked make the batches that the spans of samples make, and nothing else changes.

pytest tests/loading/test_baked.py
"""

from __future__ import annotations

import itertools
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import BackgroundLoader, Mixture, Source, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.dataset.baked import maps
from hpcdata.dataset.baked.adding import bake
from hpcdata.dataset.verifying import verify_dataset
from hpcdata.loading import baking
from hpcdata.loading.baking import bakings
from hpcdata.loading.layouts.base import KEYS
from hpcdata.loading.layouts.named import find_layout
from hpcdata.loading.selecting import select
from hpcdata.loading.step_dataset import StepDataset
from hpcdata.samples import Example, Role
from tests.loading import made
from tests.trees import tree

LAYOUTS = (
    "t2i",
    "t2i:block_size=9",
    "caption:max_length=40",
    "text:max_length=12",
    "text:max_length=30,add_bos=false",
    "interleaved:max_length=24,too_long=skip",
    "sft:max_length=40",
    "liquid_t2i:max_length=50,unconditional_share=0",
)


def samples(size: int, seed: int = 0) -> list[Example]:
    """Pairs, texts alone, images alone and samples of nothing; texts that are too long, some not to be trained on."""
    rng, examples = np.random.default_rng(seed), made.pairs(size, seed=seed)
    for row, example in enumerate(examples):
        text, image = example.spans
        told = made.text(*text.ids, role=Role.USER, loss=False)
        spans = [(text, image), (image, told), (text,), (image,), ()][rng.integers(0, 5)]
        examples[row] = Example(index=example.index, key=example.key, spans=spans)
    return examples


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same dataset of several parts, as it is and with all layouts baked."""
    plain = made.make_dataset(tmp_path_factory.mktemp("made") / "plain", made.split(samples(50)))
    baked = Path(shutil.copytree(plain, plain.with_name("baked")))
    bake(TokenDataset(baked).manifest, bakings(LAYOUTS))
    return plain, baked


def loader(folder: object, layout: str = "t2i", **options: object) -> TokenLoader:
    changes = {name: options.pop(name) for name in ("ids", "keys", "consumer") if name in options}
    found = find_layout(layout)
    options = {"global_batch_size": 8, "layout": type(found)(**{**vars(found), **changes}), **options}
    return TokenLoader(folder, **options)  # type: ignore[arg-type]


def copies_rows(loader: TokenLoader) -> bool:
    return getattr(loader._steps, "are_baked", False)


def assert_same(ours: list[dict[str, torch.Tensor]], theirs: list[dict[str, torch.Tensor]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            assert torch.equal(one[key], other[key]), key


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from([None, KEYS, ("input_ids",), ("input_ids", "labels", "index"), ("modality", "position_ids")]),
    st.sampled_from(["int64", "uint16"]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.sampled_from([None, "sequential", "blocks:4x2"]),
    st.integers(0, 9),
)
def test_batches_are_those_of_the_spans(
    folders: tuple[Path, Path],
    layout: str,
    keys: tuple[str, ...] | None,
    ids: str,
    world_size: int,
    drop_last: bool,
    order: str | None,
    seed: int,
) -> None:
    options = {"keys": keys, "ids": ids, "world_size": world_size, "drop_last": drop_last, "order": order}
    options |= {"seed": seed, "num_epochs": 2, "rank": world_size - 1}
    plain, baked = (loader(folder, layout, **options) for folder in folders)
    assert (copies_rows(plain), copies_rows(baked)) == (False, True)
    assert_same(list(baked), list(plain))
    assert baked.counts == plain.counts
    assert list(baked.account().values()) == list(plain.account().values())


@pytest.mark.parametrize("from_baked", [False, True])
def test_a_state_is_of_both(folders: tuple[Path, Path], from_baked: bool) -> None:
    first, second = folders[::-1] if from_baked else folders
    whole = list(loader(first, seed=3, num_epochs=2))
    begun = loader(first, seed=3, num_epochs=2)
    for _ in range(4):
        begun._next()
    resumed = loader(second, seed=3, num_epochs=2)
    resumed.load_state_dict(begun.state_dict())
    assert copies_rows(resumed) is not from_baked
    assert resumed.state_dict() == begun.state_dict()
    assert_same(list(resumed), whole[4:])


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("t2i:block_size=10", {}),
        ("t2i:pad_id=7", {}),
        ("text:max_length=12,pad=to_8", {}),
        ("text:max_length=12", {"packing": "bestfit:24"}),
    ],
)
def test_another_layout_reads_the_samples(folders: tuple[Path, Path], layout: str, options: dict[str, str]) -> None:
    plain, baked = (loader(folder, layout, num_epochs=1, **options) for folder in folders)
    assert not copies_rows(baked)
    assert_same(list(baked), list(plain))


def test_a_selection_has_the_rows_of_its_samples(folders: tuple[Path, Path]) -> None:
    chosen = [select(TokenDataset(folder), lambda columns: columns["index"] % 2 == 0) for folder in folders]
    for order in ("blocks:4x2", None):
        plain, baked = (loader(dataset, num_epochs=1, order=order) for dataset in chosen)
        assert (copies_rows(plain), copies_rows(baked)) == (False, True)
        assert_same(list(baked), list(plain))


def test_a_mixture_copies_rows_where_all_sources_have_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    others = [made.make_dataset(tmp_path / name, made.split(samples(33, seed=5))) for name in "ab"]
    bake(TokenDataset(others[1]).manifest, bakings(["t2i"]))
    found = []
    for mixed in itertools.product(folders, others):
        both = Mixture([Source(dataset=folder, name=str(at)) for at, folder in enumerate(mixed)])
        for order in (False, True):
            found.append((copies_rows(one := loader(both, shuffle=order)), list(itertools.islice(one, 30))))
    assert [is_copied for is_copied, _ in found] == [False] * 6 + [True] * 2
    for number, (_, batches) in enumerate(found):
        assert_same(batches, found[number % 2][1])


def test_a_copy_in_another_process_or_thread_maps_the_files_anew(folders: tuple[Path, Path]) -> None:
    expected = list(loader(folders[0], num_epochs=1))
    ours = loader(folders[1], num_epochs=1)
    next(iter(ours))
    copy = pickle.loads(pickle.dumps(ours))
    assert copies_rows(copy)
    assert_same(list(copy), expected[1:])
    assert_same(list(BackgroundLoader(loader(folders[1], num_epochs=1), num_threads=2)), expected)
    steps = torch.utils.data.DataLoader(StepDataset(loader(folders[1], num_epochs=1)), None, num_workers=2)
    assert_same(list(itertools.islice(steps, len(expected))), expected)


def test_three_threads_copy_the_same(folders: tuple[Path, Path]) -> None:
    expected = list(loader(folders[0], num_epochs=1))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert_same(list(loader(folders[1], num_epochs=1)), expected)
    finally:
        torch.set_num_threads(before)


def test_ids_that_need_32_bits(tmp_path: Path) -> None:
    plain = made.make_dataset(
        tmp_path / "plain", made.split(made.pairs(20)), layout={**made.LAYOUT, "img_token_shift": 70000}
    )
    baked = Path(shutil.copytree(plain, tmp_path / "baked"))
    (record,) = bake(TokenDataset(baked).manifest, bakings(["t2i"])).baked
    assert record.dtype == "int32"
    ours = loader(baked, num_epochs=1)
    assert copies_rows(ours)
    assert_same(list(ours), list(loader(plain, num_epochs=1)))


def test_rows_are_read_ahead_in_block_order(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[np.ndarray] = []
    monkeypatch.setattr(maps, "will_need", lambda ranges: asked.append(ranges) or True)
    ours = loader(folders[1], order="blocks:4x2", num_epochs=1, keys=("input_ids", "index"))
    delivered = np.concatenate([batch["index"].numpy() for batch in ours]) // 3
    files = ours._steps._baked.maps  # type: ignore[union-attr]
    rows = {(int(start), int(size)) for ranges in asked for start, size in ranges}
    for start, size in files._rows.spans_of(delivered, np.ones_like(delivered)).tolist():
        assert any(begin <= start and start + size <= begin + length for begin, length in rows)


def test_bytes_do_not_depend_on_how_many_rows_are_made_at_a_time(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baking, "_IDS_AT_A_TIME", 100)
    again = Path(shutil.copytree(folders[0], tmp_path / "again"))
    bake(TokenDataset(again).manifest, bakings(LAYOUTS))
    assert tree(again / "baked") == tree(folders[1] / "baked")


def test_little_is_held_in_memory(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of samples, blocks are of so many ids."""
    monkeypatch.setattr(baking, "_IDS_AT_A_TIME", 100)
    dataset = TokenDataset(folders[0])
    blocks = list(bakings(["t2i"])[0].bind(dataset.manifest).blocks(dataset))
    assert {block.rows.size for block in blocks} <= {96, 64}
    assert sum(len(block.rows) for block in blocks) == 50


@pytest.mark.parametrize("name", ["rows", "facts", "runs"])
def test_damage_is_found(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    damaged = Path(shutil.copytree(folders[0], tmp_path / "damaged"))
    (record,) = bake(TokenDataset(damaged).manifest, bakings(["t2i"])).baked
    file = damaged / record.folder / f"{name}.memmap"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    wrong = f"{record.folder}/{name}.memmap"
    assert f"{wrong} does not have the sha256 in manifest.json" in verify_dataset(damaged).problems
    file.write_bytes(whole[:-1])
    assert any(f"{wrong} has {len(whole) - 1} bytes" in problem for problem in verify_dataset(damaged).problems)
    with pytest.raises(UserError, match=f"{wrong} has {len(whole) - 1} bytes"):
        next(iter(loader(damaged)))
    file.unlink()
    assert f"{wrong} is missing" in verify_dataset(damaged).problems
    with pytest.raises(UserError, match=f"{wrong} is missing"):
        next(iter(loader(damaged)))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("liquid_t2i:max_length=50", "not always the same: bake liquid_t2i:unconditional_share=0"),
        ("text:max_length=12,pad=batch_max", "rows of several widths"),
        ("text:max_lenght=12", "'max_lenght=12' is no OPTION=VALUE of text, known: .*max_length"),
        ("text:max_length", "'max_length' is no OPTION=VALUE of text"),
        ("texts", "unknown layout 'texts'"),
        ("caption:max_length=15", "sample 0 does not fit into 15 ids"),
    ],
)
def test_what_cannot_be_baked_is_refused(tmp_path: Path, asked: str, why: str) -> None:
    folder = made.make_dataset(tmp_path / "made", made.split(made.pairs(20)))
    before = tree(folder)
    with pytest.raises(UserError, match=why):
        bake(TokenDataset(folder).manifest, bakings([asked]))
    assert tree(folder) == before


def test_images_of_several_grids_are_refused_wherever_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a loader refuses a batch that has both: here each is in a block of its own."""
    monkeypatch.setattr(baking, "_IDS_AT_A_TIME", 1)
    wide = Example(index=9, key="wide", spans=(made.image(*range(16), height=2, width=8),))
    texts = [Example(index=at, key=str(at), spans=(made.text(1, 2),)) for at in range(3)]
    square = Example(index=5, key="square", spans=(made.image(*range(16)),))
    folder = made.make_dataset(tmp_path / "made", [[*texts, square, *texts, wide]])
    with pytest.raises(UserError, match="one image grid in a batch, got 2 x 8, 4 x 4"):
        bake(TokenDataset(folder).manifest, bakings(["t2i"]))


def test_rows_whose_width_is_not_known_are_refused(tmp_path: Path) -> None:
    layout = {**made.LAYOUT, "resolution": None}
    folder = made.make_dataset(tmp_path / "made", made.split(made.pairs(20)), layout=layout)
    with pytest.raises(UserError, match="t2i:num_image_tokens=16"):
        bake(TokenDataset(folder).manifest, bakings(["t2i"]))
    bake(TokenDataset(folder).manifest, bakings(["t2i:num_image_tokens=16"]))


def test_samples_that_are_skipped_are_baked_as_padding(tmp_path: Path) -> None:
    plain = made.make_dataset(tmp_path / "plain", made.split(samples(50)))
    baked = Path(shutil.copytree(plain, tmp_path / "baked"))
    layout = "caption:max_length=17,too_long=skip"
    bake(TokenDataset(baked).manifest, bakings([layout]))
    ours, theirs = (loader(folder, layout, num_epochs=1) for folder in (baked, plain))
    assert copies_rows(ours)
    assert_same(list(ours), list(theirs))
    assert ours.counts == theirs.counts
    assert ours.counts.skipped_samples > 0

"""python -m pytest tests/loading/test_parallel.py

Ranks that share a model get the same batches; ranks that share a sequence get their parts of it.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from hpcdata import BestFit, Concat, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.context_parallel import split_context
from hpcdata.loading.layouts.named import Interleaved, Text
from hpcdata.order.ranks import find_rank
from hpcdata.samples import Example
from tests.loading import made
from tests.selection import examples

torch.set_num_threads(1)
OPTIONS = {"global_batch_size": 8, "layout": Interleaved(max_length=64)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    rng = np.random.default_rng(1)
    texts = [made.text(*rng.integers(3, 32000, rng.integers(1, 30))) for _ in range(200)]
    examples = [Example(index=row, key=str(row), spans=(text,)) for row, text in enumerate(texts)]
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples)))


@pytest.fixture
def world():
    """A process group of eight that talks to nobody; call it with the rank and the dimensions of a mesh."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")

    def start(rank: int, **dimensions: int):
        if distributed.is_initialized():
            distributed.destroy_process_group()
        distributed.init_process_group("fake", store=fake.FakeStore(), rank=rank, world_size=8)
        names, sizes = tuple(dimensions), tuple(dimensions.values())
        return init_device_mesh("cpu", sizes, mesh_dim_names=names) if dimensions else None

    yield start
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_peers_that_share_a_model_get_the_same_batches(dataset, world):
    found = []
    for rank in range(8):
        mesh = world(rank, pp=1, dp_replicate=2, dp_shard=1, cp=2, tp=2)
        found.append(next(iter(TokenLoader(dataset, mesh=mesh, **OPTIONS)))["index"].tolist())
    assert all(batch == found[0] for batch in found[:4])
    assert all(batch == found[4] for batch in found[4:])
    whole = next(iter(TokenLoader(dataset, rank=0, world_size=1, **OPTIONS)))["index"].tolist()
    assert found[0] + found[4] == whole


def test_the_ranks_of_a_mesh(world):
    assert find_rank(mesh=world(5, dp_replicate=2, fsdp=4)) == (5, 8)
    assert find_rank(mesh=world(6, tp=2, data=4)) == (2, 4)
    assert find_rank(mesh=(3, 4)) == (3, 4)
    with pytest.raises(UserError, match="dimension 'experts' of the device mesh: expected a name of data"):
        find_rank(mesh=world(0, dp=4, experts=2))
    with pytest.raises(UserError, match="pass mesh, or rank and world_size, not both"):
        find_rank(0, 2, mesh=(0, 2))


@pytest.mark.parametrize("dimensions", [{"dp": 4, "tp": 2}, {"pp": 2, "dp": 4}, {"dp_shard": 2, "cp": 4}])
def test_a_model_that_is_shared_is_noticed(dataset, world, dimensions):
    """The rank in the whole world would give its peers different batches."""
    world(3, **dimensions)
    with pytest.raises(UserError, match=r"has a group mesh_.. of . ranks, which need the same batches: pass mesh="):
        TokenLoader(dataset, **OPTIONS)
    assert TokenLoader(dataset, rank=1, world_size=4, **OPTIONS).rank == 1


def test_a_loader_that_was_made_too_early_is_noticed(dataset, world):
    """Before the processes of a trainer knew of each other, or of a mesh: all would get the same, or peers others."""
    options = {**OPTIONS, "global_batch_size": 8}
    early, given = TokenLoader(dataset, **options), TokenLoader(dataset, rank=0, world_size=1, **options)
    world(3)
    with pytest.raises(UserError, match=r"made as rank 0 of 1, before .* this process is rank 3 of 8: make the loader"):
        next(iter(early))
    assert len(next(iter(given))["index"]) == 8
    early = TokenLoader(dataset, **options)
    init_device_mesh("cpu", (4, 2), mesh_dim_names=("dp", "tp"))
    with pytest.raises(UserError, match="has a group mesh_tp of 2 ranks"):
        next(iter(early))


@pytest.mark.parametrize("dimensions", [{}, {"dp": 8}, {"dp_replicate": 2, "dp_shard": 4}, {"dp": 8, "tp": 1}])
def test_data_parallelism_alone_needs_no_mesh(dataset, world, dimensions):
    world(3, **dimensions)
    loader = TokenLoader(dataset, **OPTIONS)
    assert (loader.rank, loader.world_size) == (3, 8)


@settings(max_examples=examples(25), deadline=None)
@given(st.sampled_from([1, 2, 3, 4]), st.integers(0, 99), st.sampled_from([BestFit, Concat]))
def test_parts_of_packed_sequences(dataset, size, seed, kind):
    """Put together, they are the samples, each padded to a multiple, with the positions and targets of the whole."""
    multiple = 2 * size
    packing = kind(length=72 // multiple * multiple, multiple=multiple, window=50)
    loader = TokenLoader(dataset, packing=packing, seed=seed, rank=0, world_size=1, **OPTIONS)
    batch = next(iter(loader))
    parts = [split_context(batch, rank, size, pad_id=7) for rank in range(size)]
    edges = parts[0]["cu_seqlens"].tolist()
    assert all(edge % multiple == 0 for edge in edges)
    whole = {key: together([part[key] for part in parts], edges, size) for key in ("input_ids", "shift_labels")}
    whole |= {key: together([part[key] for part in parts], edges, size) for key in ("position_ids", "segment_ids")}
    found = []
    for start, stop in itertools.pairwise(edges):
        assert start // packing.length == (stop - 1) // packing.length
        segment = whole["segment_ids"][start]
        assert (whole["segment_ids"][start:stop] == segment).all()
        if segment:
            assert whole["position_ids"][start:stop].tolist() == list(range(stop - start))
            ids, targets = whole["input_ids"][start:stop], whole["shift_labels"][start:stop]
            length = int((targets != -100).sum()) + 1  # all ids but the first are targets
            assert (ids[length:] == 7).all()
            assert targets[: length - 1].tolist() == ids[1:length].tolist()
            assert (targets[length - 1 :] == -100).all()
            found.append(ids[:length].tolist())
    flat = batch["input_ids"].reshape(-1)
    expected = [
        flat[start:stop].tolist()
        for start, stop in zip(batch["cu_seqlens"][:-1], batch["cu_seqlens"][1:], strict=True)
        if batch["segment_ids"].reshape(-1)[start]
    ]
    assert found == expected
    assert int(parts[0]["max_seqlen"]) == max(b - a for a, b in itertools.pairwise(edges))


def together(parts: list[torch.Tensor], edges: list[int], size: int) -> torch.Tensor:
    """The flat batch of all ranks' chunks."""
    whole = torch.full((edges[-1],), -1)
    at = [0] * size
    for start, stop in itertools.pairwise(edges):
        chunk = (stop - start) // (2 * size)
        for rank in range(size):
            own = parts[rank].reshape(-1)[at[rank] : at[rank] + 2 * chunk]
            whole[start + rank * chunk : start + (rank + 1) * chunk] = own[:chunk]
            last = start + (2 * size - 1 - rank) * chunk
            whole[last : last + chunk] = own[chunk:]
            at[rank] += 2 * chunk
    return whole


def test_parts_of_rows(dataset):
    batch = next(iter(TokenLoader(dataset, global_batch_size=4, layout=Text(max_length=16, pad="to_4"))))
    parts = [split_context(batch, rank, 2) for rank in range(2)]
    assert torch.equal(parts[0]["input_ids"], batch["input_ids"][:, [*range(4), *range(12, 16)]])
    assert torch.equal(parts[1]["attention_mask"], batch["attention_mask"][:, 4:12])
    shifted = torch.cat([batch["labels"][:, 1:], torch.full((4, 1), -100)], dim=1)
    assert torch.equal(parts[1]["shift_labels"], shifted[:, 4:12])
    assert torch.equal(parts[0]["index"], batch["index"])
    assert "labels" not in parts[0]


def test_what_cannot_be_shared_out(dataset):
    batch = next(iter(TokenLoader(dataset, packing=40, **OPTIONS)))
    with pytest.raises(UserError, match="40 columns cannot be cut into 2 x 3 chunks"):
        split_context(batch, 0, 3)
    with pytest.raises(UserError, match=r"padded to multiples of 8 need \d+: use BestFit\(length=..., multiple=8\)"):
        split_context(batch, 0, 4)
    with pytest.raises(UserError, match="rank 2 of 2 that share a sequence"):
        split_context(batch, 2, 2)
    of_transformers = next(iter(TokenLoader(dataset, packing=40, consumer="hf", **OPTIONS)))
    with pytest.raises(UserError, match=r"for model\(\*\*batch\), it does not say where samples are.*consumer=.torch"):
        split_context(of_transformers, 0, 2)
    with pytest.raises(UserError, match="length=30 is no multiple of multiple=4"):
        BestFit(length=30, multiple=4)
    with pytest.raises(UserError, match="length=30 is no multiple of multiple=4"):
        Concat(length=30, multiple=4)

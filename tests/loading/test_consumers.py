"""python -m pytest tests/loading/test_consumers.py

Packed batches are right for whoever takes them: samples of a row neither see nor are trained on each other.
"""

import itertools
import os

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.attention import dense_mask, flex_mask, varlen
from hpcdata.loading.layouts.base import KEYS, PACKED_KEYS
from hpcdata.loading.layouts.named import T2I, Caption, Interleaved, LiquidT2I, Text
from hpcdata.loading.layouts.widening import widen
from hpcdata.native import compiled
from hpcdata.order.packing import BestFit, Buckets, Concat
from hpcdata.samples import Example
from tests.loading import made

torch.set_num_threads(1)
CASES = [
    (Text(), BestFit(length=40, window=32)),
    (Text(), Concat(length=24, window=32)),
    (Text(add_bos=False), BestFit(length=40, window=32)),
    (Text(add_bos=False), Concat(length=7, window=32)),
    (Interleaved(add_bos=False), BestFit(length=40, window=32)),
    (Interleaved(), BestFit(length=40, window=32)),
    (T2I(block_size=8, add_bos=False), BestFit(length=40, window=32)),
    (T2I(block_size=8), BestFit(length=40, window=32)),
    (T2I(block_size=8, num_image_tokens=4), Buckets(multiple=4, window=60)),
    (LiquidT2I(), BestFit(length=40, window=32)),
    (Caption(), BestFit(length=40, window=32)),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    """Texts of 1 to 9 ids, half of them with an image of 4 codes."""
    rng = np.random.default_rng(2)
    examples = []
    for row in range(120):
        images = [made.image(*rng.integers(0, 200, 4))] if row % 2 else []
        spans = (made.text(*rng.integers(3, 90, rng.integers(1, 10))), *images)
        examples.append(Example(index=row, key=str(row), spans=spans))
    return TokenDataset(
        made.make_dataset(
            tmp_path_factory.mktemp("made"),
            made.split(examples),
            text={**made.TEXT, "vocab_size": 100, "image_token_id": 99},
            image={**made.IMAGE, "codebook_size": 200},
            layout={**made.LAYOUT, "img_token_shift": 100, "text_vocab_size": 100, "resolution": 32},
        )
    )


@pytest.fixture(params=["compiled", "numpy"])
def loops(request, monkeypatch) -> None:
    if request.param == "numpy":
        for module in ("assembly", "fixed_batches"):
            monkeypatch.setattr(f"hpcdata.loading.layouts.{module}.kernels", lambda: None)
    elif os.environ.get("HPCDATA_KERNELS") != "0":  # with which all loader tests run once more
        assert compiled.kernels() is not None


def loader_of(dataset, layout, packing, **options) -> TokenLoader:
    packed = {"packing": packing, "global_batch_size": 4, "num_epochs": 1, "seed": 3, **options}
    return TokenLoader(dataset, layout=with_length(layout), rank=0, world_size=1, **packed)


def with_length(layout):
    import dataclasses

    is_framed = isinstance(layout, Interleaved | LiquidT2I | Caption)
    return dataclasses.replace(layout, max_length=40) if is_framed else layout


@pytest.mark.parametrize(("layout", "packing"), CASES)
@pytest.mark.parametrize("ids", ["int64", "uint16"])
def test_labels_never_cross_samples(dataset, loops, layout, packing, ids):
    """The first id of a sample is no target: models shift labels by one, and would ask the sample before it."""
    import dataclasses

    layout = dataclasses.replace(layout, ids=ids, keys=KEYS + PACKED_KEYS)
    num_trained = 0
    for batch in map(widen, loader_of(dataset, layout, packing)):
        begins = (batch["position_ids"] == 0) & batch["attention_mask"]
        assert begins.sum() == sum(batch["segment_ids"].max(dim=1).values)
        assert (batch["labels"][begins] == -100).all()
        assert (batch["labels"][~batch["attention_mask"]] == -100).all()
        is_trained = batch["labels"] != -100
        assert torch.equal(batch["labels"][is_trained], batch["input_ids"][is_trained])
        num_trained += int(is_trained.sum())
        if layout.name in ("text", "t2i", "interleaved"):
            assert is_trained[~begins & batch["attention_mask"]].all()
    assert num_trained


@pytest.mark.parametrize(("layout", "packing"), CASES)
def test_both_loops_make_the_same_labels(dataset, monkeypatch, layout, packing):
    batches = list(loader_of(dataset, layout, packing))
    monkeypatch.setattr("hpcdata.loading.layouts.assembly.kernels", lambda: None)
    for found, expected in zip(loader_of(dataset, layout, packing), batches, strict=True):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


def test_an_empty_row_is_a_segment_of_its_own(dataset, loops):
    options = {"global_batch_size": 32, "drop_last": False}
    widths = []
    for batch in loader_of(dataset, Caption(), Buckets(multiple=64, window=50, rest="pad"), **options):
        width = batch["input_ids"].shape[1]
        edges = batch["cu_seqlens"]
        empty = int((batch["segment_ids"].max(dim=1).values == 0).sum())
        assert edges[-1] == batch["input_ids"].numel()
        assert edges.diff().max() <= width
        assert batch["max_seqlen"] == edges.diff().max()
        assert edges[-1 - empty :].diff().tolist() == [width] * empty
        widths.append(empty)
    assert max(widths) > 1


def test_what_is_in_a_batch_is_chosen_for_its_consumer(dataset):
    interleaved = Interleaved(max_length=40)
    plain = {"global_batch_size": 4, "layout": interleaved}
    packed = {**plain, "packing": "bestfit"}
    keys = lambda **options: set(next(iter(TokenLoader(dataset, **options))))  # noqa: E731
    assert keys(**plain) == set(KEYS)
    assert (
        keys(**packed)
        == keys(**packed, consumer="torch")
        == {
            *KEYS,
            "segment_ids",
            "cu_seqlens",
            "max_seqlen",
        }
        - {"attention_mask"}
    )
    assert keys(**plain, consumer="hf") == {"input_ids", "attention_mask", "labels", "position_ids"}
    edges = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    assert keys(**packed, consumer="hf") == {"input_ids", "labels", "position_ids", "use_cache", *edges}
    batch = next(iter(TokenLoader(dataset, **packed, consumer="hf")))
    assert (batch["use_cache"], type(batch["max_length_q"])) == (False, int)
    own = Interleaved(max_length=40, keys=("input_ids", "attention_mask"))
    assert keys(**{**packed, "layout": own}) == {"input_ids", "attention_mask"}
    with pytest.raises(UserError, match="consumer='keras', expected one of any, hf, torch"):
        TokenLoader(dataset, **packed, consumer="keras")


def test_a_state_goes_on_with_another_consumer(dataset):
    options = {"global_batch_size": 4, "layout": Interleaved(max_length=40), "packing": 40}
    state = TokenLoader(dataset, **options).state_dict()
    TokenLoader(dataset, **options, consumer="hf").load_state_dict(state)


@pytest.mark.parametrize(
    ("packing", "expected"),
    [
        ("bestfit:64", BestFit(length=64)),
        ("bestfit", BestFit(length=40)),
        ("buckets", Buckets()),
        ("buckets:8", Buckets(multiple=8)),
    ],
)
def test_a_packing_by_its_name(dataset, packing, expected):
    options = {"global_batch_size": 4, "layout": Interleaved(max_length=40)}
    assert TokenLoader(dataset, packing=packing, **options).packing == expected


@pytest.mark.parametrize("packing", ["best_fit", "bestfit:0", "buckets:x"])
def test_names_of_packings_are_checked(dataset, packing):
    with pytest.raises(UserError, match=r"expected bestfit:4096, concat:4096, buckets or buckets:128"):
        TokenLoader(dataset, global_batch_size=4, packing=packing)
    with pytest.raises(UserError, match="needs the columns of a row: bestfit:4096"):
        TokenLoader(dataset, global_batch_size=4, packing="bestfit")


def test_less_than_no_epoch_is_refused(dataset):
    with pytest.raises(UserError, match="num_epochs=-1, expected 0 or more, or None"):
        TokenLoader(dataset, global_batch_size=4, num_epochs=-1)


def one_by_one(q, k, v, batch) -> torch.Tensor:
    """Attention within each segment by itself, zeros elsewhere."""
    out = torch.zeros_like(q)
    for row, segments in enumerate(batch["segment_ids"]):
        for segment in range(1, int(segments.max()) + 1):
            at = segments == segment
            part = (x[row : row + 1, :, at] for x in (q, k, v))
            out[row, :, at] = scaled_dot_product_attention(*part, is_causal=True)[0]
    return out


def varlen_reference(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal) -> torch.Tensor:
    """What flash_attn_varlen_func computes: [total, heads, size]."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q == max_seqlen_k
    edges, out = cu_seqlens_q.tolist(), torch.empty_like(q)
    for start, stop in itertools.pairwise(edges):
        part = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        out[start:stop] = scaled_dot_product_attention(*part, is_causal=causal)[0].transpose(0, 1)
    return out


@pytest.mark.slow
def test_masks_and_edges_keep_samples_apart(dataset):
    """sdpa, flex attention, and the signature of flash-attn."""
    from torch.nn.attention.flex_attention import flex_attention

    layout = Interleaved(max_length=40)
    batch = next(iter(TokenLoader(dataset, global_batch_size=3, layout=layout, packing=40, consumer="torch")))
    q, k, v = torch.randn(3, 3, 2, 40, 16)
    expected = one_by_one(q, k, v, batch)
    valid = (batch["segment_ids"] > 0)[:, None, :, None]
    found = scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(batch))
    assert not found.isnan().any()
    torch.testing.assert_close(found * valid, expected)
    found = flex_attention(q, k, v, block_mask=flex_mask(batch))
    torch.testing.assert_close(found * valid, expected)
    flat = (x.transpose(1, 2).reshape(-1, 2, 16) for x in (q, k, v))
    found = varlen_reference(*flat, **varlen(batch), causal=True).view(3, 40, 2, 16).transpose(1, 2)
    torch.testing.assert_close(found * valid, expected)
    assert dense_mask(batch, is_causal=False).sum() > dense_mask(batch).sum()
    with pytest.raises(UserError, match="no segment_ids"):
        dense_mask({})


def models():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config
    from transformers import Qwen2ForCausalLM as Qwen2

    sizes = {"vocab_size": 310, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    return {
        "llama": lambda **how: LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, **how)),
        "qwen2": lambda **how: Qwen2(Qwen2Config(**sizes, num_key_value_heads=2, **how)),
        "neox": lambda **how: GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **how)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen2", "neox"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_of_transformers_sees_each_sample_alone(dataset, name, attention):
    """`model(**batch)`, in the mode that trains and the one that does not: logits and loss as of single samples."""
    torch.manual_seed(0)
    model = models()[name](attn_implementation=attention).eval()
    options = {"layout": Interleaved(max_length=40), "packing": 40, "global_batch_size": 3}
    batch = next(iter(TokenLoader(dataset, **options, consumer="hf")))
    segments = next(iter(TokenLoader(dataset, **options)))["segment_ids"]
    with torch.no_grad():
        found = model(**batch)
        losses, num_labels = 0.0, 0
        for row, of_row in enumerate(segments):
            for segment in range(1, int(of_row.max()) + 1):
                at = of_row == segment
                ids, labels = batch["input_ids"][row, at], batch["labels"][row, at]
                alone = model(input_ids=ids[None], labels=labels[None])
                torch.testing.assert_close(found.logits[row, at], alone.logits[0], atol=1e-5, rtol=1e-4)
                number = int((labels[1:] != -100).sum())
                losses, num_labels = losses + float(alone.loss) * number, num_labels + number
    assert int(segments.max()) > 2
    assert float(found.loss) == pytest.approx(losses / num_labels, rel=1e-4)

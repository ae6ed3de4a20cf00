"""python -m pytest tests/loading/layouts/test_interleaved.py"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.named import SFT, T2I, Caption, Interleaved, LiquidT2I, Text
from hpcdata.order.bins import Bins
from hpcdata.samples import Example, Kind, Role
from tests.loading import made
from tests.selection import examples

SHIFT, BOI, EOI, UNCONDITIONAL = 32001, 32001 + 16384, 32001 + 16385, 32001 + 16386
BOS, EOS = 1, 2
CODES = [0, 7, 16383, 0]
SHIFTED = [SHIFT + code for code in CODES]
KEYS = ("input_ids", "attention_mask", "modality", "labels", "position_ids", "index")


def example(*spans, index=0):
    return Example(index=index, key=str(index), spans=spans)


def dataset_of(folder, *examples, **manifest):
    return TokenDataset(made.make_dataset(folder, [examples], **manifest))


def batch_of(dataset, layout, rows=None, seeds=None):
    rows = np.arange(len(dataset)) if rows is None else np.array(rows)
    return layout.bind(dataset.manifest).batch(dataset, rows, seeds)


def row(batch, at=0):
    """(ids, labels) of a row's valid ids: ids without a label as negative numbers."""
    mask = batch.arrays["attention_mask"][at]
    ids, labels = batch.arrays["input_ids"][at][mask], batch.arrays["labels"][at][mask]
    assert ((labels == ids) | (labels == -100)).all()
    return [int(i) if label == i else -int(i) for i, label in zip(ids, labels, strict=True)]


def test_caption(tmp_path):
    dataset = dataset_of(tmp_path, example(made.text(5, 6), made.image(*CODES)), example(made.text(7)))
    batch = batch_of(dataset, Caption(max_length=12))
    assert row(batch, 0) == [-BOS, -BOI, *(-i for i in SHIFTED), -EOI, 5, 6, EOS]
    assert row(batch, 1) == [-BOS, 7, EOS]
    assert batch.arrays["modality"][0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert batch.arrays["position_ids"][0].tolist() == [*range(10), 0, 0]


def test_liquid_t2i(tmp_path):
    dataset = dataset_of(tmp_path, example(made.text(5, 6), made.image(*CODES)), example(made.text(7)))
    conditional = batch_of(dataset, LiquidT2I(max_length=12, unconditional_share=0))
    assert row(conditional, 0) == [-BOS, -5, -6, -BOI, *SHIFTED, EOI, EOS]
    assert row(conditional, 1) == [-BOS, -7, EOS]
    dropped = batch_of(dataset, LiquidT2I(max_length=12, unconditional_share=1))
    assert row(dropped, 0) == [-BOS, -UNCONDITIONAL, -BOI, *SHIFTED, EOI, EOS]
    assert (dropped.counts.text_tokens, dropped.counts.image_tokens) == (5 + 1 + 3 - 1, 4)


def test_unconditional_share_is_drawn_for_each_example(tmp_path):
    dataset = dataset_of(tmp_path, *(example(made.text(5, 6), made.image(*CODES)) for _ in range(2000)))
    layout, rows = LiquidT2I(max_length=12, keys=("input_ids",)), np.arange(2000)

    def dropped(seeds):
        return batch_of(dataset, layout, rows, seeds).arrays["input_ids"][:, 1] == UNCONDITIONAL

    first = dropped(rows)
    assert 140 < first.sum() < 260
    assert (first == dropped(rows)).all()
    assert (first != dropped(rows + 2000)).any()
    backwards = batch_of(dataset, layout, rows[::-1], rows[::-1]).arrays["input_ids"][:, 1] == UNCONDITIONAL
    assert (backwards[::-1] == first).all()


def test_interleaved_keeps_the_order_of_texts_and_images(tmp_path):
    spans = (made.image(1, height=1, width=1), made.text(5), made.text(), made.image(*CODES), made.text(6, 7))
    dataset = dataset_of(tmp_path, example(*spans))
    expected = [BOS, BOI, SHIFT + 1, EOI, 5, BOI, *SHIFTED, EOI, 6, 7, EOS]
    assert row(batch_of(dataset, Interleaved(max_length=20))) == expected
    for length in (11, 12, 13):
        batch = batch_of(dataset, Interleaved(max_length=length))
        assert row(batch) == expected[:length]
        assert (batch.counts.truncated_texts, batch.counts.padding) == (1, 0)
    with pytest.raises(UserError, match=r"sample 0 does not fit into 10 ids without cutting an image"):
        batch_of(dataset, Interleaved(max_length=10))


def test_sft_trains_on_what_the_assistant_says(tmp_path):
    def said(role, *ids):
        return made.text(*ids, role=role, loss=role is Role.ASSISTANT)

    user, assistant = Role.USER, Role.ASSISTANT
    turns = (
        said(Role.SYSTEM, 3),
        said(user, 4),
        made.image(*CODES),
        said(user, 5),
        said(assistant, 6, 7),
        said(user, 8),
        said(assistant, 9),
    )
    dataset = dataset_of(tmp_path, example(*turns), example(said(user, 4)), example(said(user, 4), said(assistant)))
    batch = batch_of(dataset, SFT(max_length=20))
    ignored = [-BOS, -3, -4, -BOI, *(-i for i in SHIFTED), -EOI, -5]
    assert row(batch, 0) == [*ignored, 6, 7, EOS, -8, 9, EOS]
    assert row(batch, 1) == [-BOS, -4]
    assert row(batch, 2) == [-BOS, -4, EOS]
    cut = batch_of(dataset, SFT(max_length=11))
    assert row(cut, 0) == [*ignored, 6]
    assert cut.counts.truncated_texts == 1


def test_an_image_is_never_cut(tmp_path):
    """Texts make room; what still does not fit is an error, or padding in its place, counted."""
    long = example(made.image(*range(16)), made.text(5), index=7)
    dataset = dataset_of(tmp_path, example(made.image(*CODES), made.text(*range(10, 30)), index=4), long)
    layout = Caption(max_length=10)
    with pytest.raises(UserError, match=r"sample 7 does not fit into 10 ids without cutting an image.*too_long"):
        batch_of(dataset, layout)
    batch = batch_of(dataset, dataclasses.replace(layout, too_long="skip"))
    assert row(batch, 0) == [-BOS, -BOI, *(-i for i in SHIFTED), -EOI, 10, 11, EOS]
    assert row(batch, 1) == []
    assert batch.arrays["index"].tolist() == [4, 7]
    counts = batch.counts
    assert (counts.samples, counts.skipped_samples, counts.truncated_texts, counts.left_out_images) == (1, 1, 1, 1)
    assert (counts.text_tokens, counts.image_tokens, counts.padding) == (6, 4, 10)


@pytest.mark.parametrize(("pad", "width"), [("max_len", 40), ("batch_max", 10), ("to_8", 16), ("to_128", 128)])
def test_pad_modes(tmp_path, pad, width):
    dataset = dataset_of(tmp_path, example(made.image(*CODES), made.text(5, 6)), example(made.text(5, 6)))
    batch = batch_of(dataset, Caption(max_length=40, pad=pad))
    assert batch.arrays["input_ids"].shape == (2, width)
    assert batch.counts.padding == 2 * width - 10 - 4
    text = batch_of(dataset, Text(max_length=40, pad=pad))
    assert text.arrays["input_ids"].shape[1] == {40: 40, 10: 4, 16: 8, 128: 128}[width]
    assert row(text) == [BOS, 5, 6, EOS]


def test_control_ids_may_be_given(tmp_path):
    dataset = dataset_of(tmp_path, example(made.text(5), made.image(*CODES)))
    layout = LiquidT2I(max_length=12, boi_id=90, eoi_id=91, bos_id=92, eos_id=93, pad_id=94, unconditional_share=0)
    ids = batch_of(dataset, layout).arrays["input_ids"].tolist()
    assert ids == [[92, 5, 90, *SHIFTED, 91, 93, 94, 94, 94]]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Caption(), "caption needs max_length"),
        (SFT(max_length=3), "sft needs max_length"),
        (Caption(max_length=9, img_token_shift=7), "caption: img_token_shift=7 is below"),
        (Caption(max_length=9, pad="to_0"), "pad='to_0', expected max_len"),
        (Text(max_length=9, pad="longest"), "pad='longest', expected max_len"),
        (T2I(pad="batch_max"), "t2i has fixed columns"),
        (Caption(max_length=9, too_long="cut"), "too_long='cut', expected raise or skip"),
    ],
)
def test_options_are_checked(tmp_path, layout, message):
    dataset = dataset_of(tmp_path, example(made.text(5)))
    with pytest.raises(UserError, match=message):
        layout.bind(dataset.manifest)


def slow_sequence(spans, name):
    """[(id, has a label, is a code)] of a sample, without any limit."""
    texts = [span for span in spans if span.kind == Kind.TEXT]
    images = [span for span in spans if span.kind == Kind.IMAGE]
    ordered = {"caption": [*images, *texts], "liquid_t2i": [*texts, *images]}.get(name, list(spans))
    everything = name == "interleaved"
    ids = [(BOS, everything, False)]
    for at, span in enumerate(ordered):
        if span.kind == Kind.IMAGE:
            coded = everything or name == "liquid_t2i"
            ids.append((BOI, everything, False))
            ids += [(int(code) + SHIFT, coded, True) for code in span.ids]
            ids.append((EOI, coded, False))
        else:
            trained = everything or name == "caption" or (name == "sft" and span.loss)
            ids += [(int(i), trained, False) for i in span.ids]
            follower = ordered[at + 1] if at + 1 < len(ordered) else None
            goes_on = follower is not None and follower.kind == Kind.TEXT and follower.loss
            if name == "sft" and span.loss and not goes_on:
                ids.append((EOS, True, False))
    return ids if name == "sft" else [*ids, (EOS, True, False)]


spans_of = st.lists(
    st.one_of(
        st.builds(
            lambda ids, loss: made.text(*ids, role=Role.ASSISTANT if loss else Role.USER, loss=loss),
            st.lists(st.integers(0, 31999), max_size=6),
            st.booleans(),
        ),
        st.integers(1, 3).flatmap(
            lambda side: st.lists(st.integers(0, 16383), min_size=side * side, max_size=side * side).map(
                lambda ids: made.image(*ids)
            )
        ),
    ),
    max_size=6,
)


@settings(max_examples=examples(60), deadline=None)
@given(
    samples=st.lists(spans_of, min_size=1, max_size=8),
    layout=st.sampled_from([Caption, LiquidT2I, Interleaved, SFT]),
    max_length=st.integers(4, 60),
)
def test_agrees_with_the_slow_way(tmp_path_factory, samples, layout, max_length):
    """Any samples, any length: what fits is as written down one by one, what is cut keeps its images whole."""
    examples = [example(*spans, index=at) for at, spans in enumerate(samples)]
    dataset = TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples, (2, 0, 1))))
    options = {"unconditional_share": 0} if layout is LiquidT2I else {}
    batch = batch_of(dataset, layout(max_length=max_length, too_long="skip", **options))
    for at, spans in enumerate(samples):
        expected = slow_sequence(spans, layout.name)
        found = row(batch, at)
        codes = [entry for entry in expected if entry[2]]
        if len(expected) <= max_length:
            assert found == [i if trained else -i for i, trained, _ in expected]
            assert (batch.arrays["modality"][at][: len(found)] == [code for _, _, code in expected]).all()
        elif found:
            assert len(found) == max_length
            assert int(batch.arrays["modality"][at].sum()) == len(codes)
            if layout.form.cut == "tail":
                assert found == [i if trained else -i for i, trained, _ in expected[:max_length]]
            else:
                assert found[-1] == EOS
        else:
            assert codes or not spans
    mask = batch.arrays["attention_mask"]
    assert batch.counts.padding == int((~mask).sum())
    assert batch.counts.text_tokens + batch.counts.image_tokens == int(mask.sum())
    assert batch.counts.image_tokens == int(batch.arrays["modality"].sum())


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(3, 24), st.integers(0, 2**32), st.lists(st.integers(0, 79), min_size=1, max_size=40))
def test_runs_make_what_the_fast_ways_make(tmp_path_factory, width, seed, rows):
    """T2I and Text have a faster way for whole batches: the general one agrees, which packing builds upon."""
    folder = made.make_dataset(tmp_path_factory.mktemp("pairs"), made.split(made.pairs(80, seed=seed)))
    dataset, rows = TokenDataset(folder), np.array(rows)
    for layout in (T2I(block_size=width), Text(max_length=width)):
        bound = layout.bind(dataset.manifest)
        fast = bound.batch(dataset, rows)
        lineup = bound.lineup(dataset.spans(rows), rows)
        arranged = bound.arrange(dataset, lineup, Bins.one_each(len(rows)))
        slow = arranged.batch(0, len(rows), bound.max_width)
        assert fast.counts == slow.counts
        for key in KEYS:
            assert fast.arrays[key].dtype == slow.arrays[key].dtype
            assert (fast.arrays[key] == slow.arrays[key]).all(), key

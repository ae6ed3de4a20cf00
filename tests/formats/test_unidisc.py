"""python -m pytest tests/formats/test_unidisc.py"""

import json
import subprocess
import sys

import pytest
import torch
from tensordict import TensorDict

from hpcdata import export as export_command
from hpcdata import verify as verify_command
from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.formats import unidisc as export
from hpcdata.formats.unidisc import ExportOptions, export_unidisc
from hpcdata.samples import Example, Kind, Role
from tests.loading import made

torch.set_num_threads(1)


def run(folder, out, **options):
    return export_unidisc(folder, out, ExportOptions(**options)), TensorDict.load_memmap(out)


def described(tensors):
    return {name: (str(tensors[name].dtype), tuple(tensors[name].shape)) for name in tensors.keys()}  # noqa: SIM118


@pytest.mark.parametrize("chunk_ids", [2**20, 100])
def test_pairs(tmp_path, monkeypatch, chunk_ids):
    """Every row, over uneven parts and chunks: zero codes, ids above int16, texts cut to block_size."""
    monkeypatch.setattr(export, "_CHUNK_IDS", chunk_ids)
    examples = made.pairs(55, vocab_size=65536)
    folder = made.make_dataset(tmp_path / "dataset", made.split(examples))
    summary, tensors = run(folder, tmp_path / "out")
    assert described(tensors) == {
        "img_input_ids": ("torch.int32", (55, 16)),
        "txt_input_ids": ("torch.int32", (55, 16)),
        "txt_attention_mask": ("torch.bool", (55, 16)),
        "idx": ("torch.int64", (55, 1)),
        "write_flag": ("torch.bool", (55, 1)),
    }
    assert tensors.batch_size == torch.Size([55])
    assert tensors["write_flag"].all()
    assert tensors["idx"][:, 0].tolist() == [3 * row for row in range(55)]
    num_cut = 0
    for row, example in enumerate(examples):
        text, image = example.spans
        expected = [1, *text.ids.tolist()[:14], 2]
        num_cut += len(text.ids) > 14
        assert tensors["img_input_ids"][row].tolist() == image.ids.tolist()
        assert tensors["txt_input_ids"][row][: len(expected)].tolist() == expected
        assert tensors["txt_attention_mask"][row].tolist() == [at < len(expected) for at in range(16)]
    assert (summary.kind, summary.width, summary.truncated_texts) == ("pairs", 16, num_cut)
    assert tensors["img_input_ids"].max() > 32767
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["img_token_shift"] == 32001
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "out"]


def test_options_of_pairs(tmp_path):
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(9)], layout={})
    longest = max(len(example.spans[0].ids) for example in TokenDataset(folder))
    summary, tensors = run(folder, tmp_path / "longest")
    assert summary.width == longest + 2
    assert tensors["txt_attention_mask"].sum(dim=1).max() == longest + 2
    _, tensors = run(folder, tmp_path / "plain", block_size=25, add_bos=False, add_eos=False, pad_id=0)
    ids = TokenDataset(folder)[4].spans[0].ids.tolist()
    assert tensors["txt_input_ids"][4].tolist() == ids + [0] * (25 - len(ids))


def interleaved():
    return [
        Example(
            index=4, key="a", spans=(made.text(5, 6), made.image(0, 9, 0, 7), made.text(8), made.image(0, 0, 0, 0))
        ),
        Example(index=5, key="b", spans=(made.text(*range(10, 30)),)),
        Example(index=7, key="c", spans=(made.image(*range(9)), made.text(3))),
        Example(index=8, key="d", spans=()),
    ]


def test_interleaved(tmp_path):
    folder = made.make_dataset(tmp_path / "dataset", [interleaved()[:1], [], interleaved()[1:]])
    summary, tensors = run(folder, tmp_path / "out")
    assert described(tensors) == {
        "input_ids": ("torch.int32", (4, 22)),
        "attention_mask": ("torch.bool", (4, 22)),
        "modality": ("torch.int8", (4, 22)),
        "idx": ("torch.int64", (4, 1)),
        "sample_ids": ("torch.int32", (4, 22)),
    }
    assert torch.equal(tensors["sample_ids"] == 0, tensors["attention_mask"])
    assert torch.equal(tensors["sample_ids"] == -1, ~tensors["attention_mask"])
    assert tensors["input_ids"][0, :13].tolist() == [1, 5, 6, 0, 9, 0, 7, 8, 0, 0, 0, 0, 2]
    assert tensors["modality"][0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1] + [0] * 10
    assert tensors["modality"].sum(dim=1).tolist() == [8, 0, 9, 0]
    assert tensors["attention_mask"].sum(dim=1).tolist() == [13, 22, 12, 2]
    assert tensors["idx"][:, 0].tolist() == [4, 5, 7, 8]
    assert (summary.kind, summary.truncated_texts, summary.left_out_images) == ("interleaved", 0, 0)


def test_interleaved_never_cuts_an_image(tmp_path):
    folder = made.make_dataset(tmp_path / "dataset", [interleaved()])
    summary, tensors = run(folder, tmp_path / "out", max_length=10)
    assert tensors["input_ids"][0].tolist() == [1, 5, 6, 0, 9, 0, 7, 8, 2, 2]
    assert tensors["attention_mask"].sum(dim=1).tolist() == [9, 10, 2, 2]
    assert tensors["modality"].sum(dim=1).tolist() == [4, 0, 0, 0]
    assert (summary.truncated_texts, summary.left_out_images) == (1, 2)


def test_pairs_as_interleaved(tmp_path):
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(5)])
    _, tensors = run(folder, tmp_path / "out", interleaved=True)
    for row, example in enumerate(TokenDataset(folder)):
        valid = tensors["attention_mask"][row]
        is_image = tensors["modality"][row].bool()
        assert tensors["input_ids"][row][is_image].tolist() == example.spans[1].ids.tolist()
        assert tensors["input_ids"][row][valid & ~is_image].tolist() == [1, *example.spans[0].ids.tolist(), 2]


@pytest.mark.parametrize(
    "odd",
    [
        (made.text(1),),
        (made.image(0, 0, 0, 0),),
        (made.text(1), made.image(0)),
        (made.text(1), made.image(*range(16), height=2, width=8)),
    ],
)
def test_one_sample_that_is_no_pair_decides(tmp_path, odd):
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(5), [Example(index=90, key="odd", spans=odd)]])
    summary, tensors = run(folder, tmp_path / "out")
    assert summary.kind == "interleaved"
    assert int(tensors["modality"].sum()) == 80 + sum(len(span.ids) for span in odd if span.kind == Kind.IMAGE)


PAD = 32000
"""UniDisc's with a text vocabulary of 32,000."""


def read_by_packing(sample) -> tuple[list[int], list[int]]:
    """(ids, modality) that UniDisc's packing keeps of a sample: up to the first -1 of `sample_ids` or, without these,
    to the first id of padding, whether it pads or not. A sample that it finds no end of must be valid to its end.
    """
    if "sample_ids" in sample.keys():  # noqa: SIM118
        ends = torch.nonzero(sample["sample_ids"] == -1)
    else:
        ends = torch.nonzero(sample["input_ids"] == PAD)
    if not len(ends):
        assert sample["attention_mask"].all(), "UniDisc stops here"
    end = int(ends[0]) if len(ends) else len(sample["input_ids"])
    return sample["input_ids"][:end].tolist(), sample["modality"][:end].tolist()


def talks(marker: int = 32000):
    """Conversations with the id of `<image>` before each image: by default 32000, as data.add_image_token makes it with
    a text vocabulary of 32,000. 811 stands among the words as well.
    """
    return [
        Example(
            index=3 * at,
            key=str(at),
            spans=(
                made.text(811, 5 + at, marker),
                made.image(*codes),
                made.text(6, 811, 7),
                made.text(9, marker),
                made.image(*codes[::-1]),
            ),
        )
        for at, codes in enumerate([(1, 2, 3, 4), (0, 0, 0, 0), (811, 2, 811, 31999)])
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pad_id": "unidisc"},
        {"image_token_id": "unidisc"},
        {"pad_id": "unidisc", "image_token_id": "unidisc"},
        {"pad_id": "unidisc", "image_token_id": "unidisc", "sample_ids": True},
        {"pad_id": 5},
        {"image_token_id": 7, "pad_id": 31000},
    ],
)
def test_unidiscs_packing_reads_every_image(tmp_path, options):
    """Its padding has the id that our `<image>` has: without more, it ended each sample before its first image."""
    folder = made.make_dataset(tmp_path / "dataset", [talks()])
    summary, tensors = run(folder, tmp_path / "out", max_length=30, **options)
    image = {"unidisc": 811}.get(options.get("image_token_id"), options.get("image_token_id", 32000))
    for row, example in enumerate(talks()):
        ids, modality = read_by_packing(tensors[row])
        stored = [[int(i) for i in span.ids] for span in example.spans]
        expected = [1, *(image if i == 32000 else i for ids in stored for i in ids), 2]
        assert ids == expected
        assert sum(modality) == 8
    has_own_pad = options.get("pad_id") == "unidisc" and "image_token_id" in options
    assert summary.sample_ids is ("sample_ids" in tensors.keys())  # noqa: SIM118
    assert summary.sample_ids is (not has_own_pad or options.get("sample_ids", False))
    assert tensors["input_ids"][0, -1] == {"unidisc": PAD}.get(options.get("pad_id"), options.get("pad_id", 2))


@pytest.mark.parametrize("place", ["text", "codes"])
def test_an_id_of_the_data_that_equals_padding_is_found(tmp_path, place):
    """Codes are unshifted in an export: emu3 and open_magvit2 have a code 32000."""
    odd = made.text(PAD - 1) if place == "text" else made.image(0, PAD, 1, 2)
    pad = {"text": PAD - 1, "codes": "unidisc"}[place]
    parts = [[Example(index=5, key="a", spans=(made.text(1),))], [Example(index=9, key="b", spans=(made.text(2), odd))]]
    folder = made.make_dataset(tmp_path / "dataset", parts)
    _, tensors = run(folder, tmp_path / "out", pad_id=pad, add_eos=False, max_length=9)
    assert read_by_packing(tensors[1])[0] == [1, 2, *(int(i) for i in odd.ids)]
    with pytest.raises(UserError, match=r"sample 9 has an id 3\d+, which is also that of padding.*--pad-id"):
        run(folder, tmp_path / "strict", pad_id=pad, add_eos=False, max_length=9, sample_ids=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "out"]
    _, strict = run(folder, tmp_path / "strict", pad_id=7, add_eos=False, max_length=9, sample_ids=False)
    assert "sample_ids" not in strict.keys()  # noqa: SIM118


def test_an_image_id_that_is_a_word_piece_is_renamed_only_before_images(tmp_path):
    text = {**made.TEXT, "vocab_size": 32001, "image_token_id": 811, "pad_id": 32000}
    folder = made.make_dataset(tmp_path / "dataset", [talks(811)], text=text)
    _, tensors = run(folder, tmp_path / "out", image_token_id=32007)
    assert tensors["input_ids"][0].tolist() == [1, 811, 5, 32007, 1, 2, 3, 4, 6, 811, 7, 9, 32007, 4, 3, 2, 1, 2]
    assert "sample_ids" not in tensors.keys()  # noqa: SIM118
    _, kept = run(folder, tmp_path / "kept")
    assert kept["input_ids"][0].tolist() == [1, 811, 5, 811, 1, 2, 3, 4, 6, 811, 7, 9, 811, 4, 3, 2, 1, 2]


def test_captions_with_a_marker(tmp_path):
    examples = [Example(index=at, key=str(at), spans=(made.text(5, 32000, 6), made.image(*range(4)))) for at in (0, 1)]
    folder = made.make_dataset(tmp_path / "dataset", [examples])
    summary, tensors = run(folder, tmp_path / "out", block_size=6, pad_id="unidisc", image_token_id="unidisc")
    assert (summary.kind, tensors["txt_input_ids"][1].tolist()) == ("pairs", [1, 5, 811, 6, 2, PAD])


def test_conversations_have_a_bos_and_an_eos_a_turn(tmp_path):
    """As UniDisc stores them: with what the system says in front, `<image>` before the codes, its own padding."""
    turns = [
        (made.text(5, 32000, role=Role.USER, loss=False), made.image(0, 9, 0, 7), made.text(6, role=Role.USER)),
        (made.text(7, 8, role=Role.ASSISTANT),),
    ]
    samples = [sum(turns, ()), turns[0], (made.text(4),)]
    examples = [Example(index=at, key=str(at), spans=spans) for at, spans in enumerate(samples)]
    folder = made.make_dataset(tmp_path / "dataset", [examples[:1], examples[1:]])
    ids = {"pad_id": "unidisc", "image_token_id": "unidisc"}
    summary, tensors = run(folder, tmp_path / "out", template="unidisc", **ids)
    assert (summary.kind, summary.width, summary.sample_ids) == ("interleaved", 15, False)
    first = [1, 2, 1, 5, 811, 0, 9, 0, 7, 6, 2, 1, 7, 8, 2]
    assert read_by_packing(tensors[0]) == (first, [0] * 5 + [1] * 4 + [0] * 6)
    assert read_by_packing(tensors[1])[0] == first[:11]
    assert read_by_packing(tensors[2])[0] == [1, 4, 2]
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["template"] == {"template": "unidisc", "frame": [1, 2], "system": []}
    with pytest.raises(UserError, match="--bos and --eos are for samples without --template"):
        run(folder, tmp_path / "new", template="unidisc", add_eos=True)
    with pytest.raises(UserError, match="add --template"):
        run(folder, tmp_path / "new", system="be kind")


@pytest.mark.parametrize(
    ("manifest", "options", "message"),
    [
        ({"text": {**made.TEXT, "image_token_id": None}}, {"image_token_id": 811}, "have no <image>"),
        ({}, {"image_token_id": -1}, "expected an id from 0 on"),
    ],
)
def test_image_ids_that_cannot_be(tmp_path, manifest, options, message):
    folder = made.make_dataset(tmp_path / "dataset", [talks()], **manifest)
    with pytest.raises(UserError, match=message):
        run(folder, tmp_path / "out", **options)


def test_nothing_is_overwritten_or_left_behind(tmp_path, monkeypatch):
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(5)])
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists already"):
        run(folder, tmp_path / "out")
    with pytest.raises(UserError, match="make it first"):
        run(folder, tmp_path / "no" / "out")
    with pytest.raises(UserError, match="no samples"):
        run(made.make_dataset(tmp_path / "empty", [[]]), tmp_path / "new")
    with pytest.raises(UserError, match="--block_size 0: bos and eos do not fit"):
        run(folder, tmp_path / "new", block_size=0)
    monkeypatch.setattr(export, "_write_meta", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "empty", "out"]
    assert not list((tmp_path / "out").iterdir())


def test_command_line(tmp_path, capsys):
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(5)])
    arguments = [str(folder), str(tmp_path / "out"), "--format", "unidisc", "--block_size", "8", "--no-bos"]
    assert export_command.main(arguments) == 0
    tensors = TensorDict.load_memmap(tmp_path / "out")
    assert tensors["txt_input_ids"].shape == (5, 8)
    text = TokenDataset(folder)[4].spans[0].ids.tolist()
    assert tensors["txt_input_ids"][4].tolist() == [*text[:7], 2] + [2] * (7 - len(text[:7]))
    assert "5 samples (pairs, 8 columns)" in capsys.readouterr().out
    assert verify_command.main([str(tmp_path / "out")]) == 0
    assert "unidisc, 7 inputs = 5 written" in capsys.readouterr().out
    assert export_command.main(arguments) == 0  # finds it
    assert "5 samples (pairs, 8 columns)" in capsys.readouterr().out
    assert export_command.main([*arguments, "--eos", "--no-eos"]) == 2
    assert "holds another export (add_eos was None, now False)" in capsys.readouterr().err
    interleaved = [str(folder), str(tmp_path / "interleaved"), "--format", "unidisc", "--interleaved"]
    assert export_command.main(interleaved) == 0
    assert "sample_ids tell padding; UniDisc's own ids: --pad-id unidisc" in capsys.readouterr().out
    unidisc = [str(folder), str(tmp_path / "ids"), "--format", "unidisc", "--interleaved", "--json"]
    assert export_command.main([*unidisc, "--pad-id", "unidisc", "--image-token-id", "unidisc"]) == 0
    assert json.loads(capsys.readouterr().out)["sample_ids"] is False
    tensors = TensorDict.load_memmap(tmp_path / "ids")
    assert tensors["input_ids"][~tensors["attention_mask"]].unique().tolist() == [PAD]


def test_help_does_not_wait_for_torch():
    code = "import sys; from hpcdata import export\ntry: export.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"
    assert "--block-size" in done.stdout

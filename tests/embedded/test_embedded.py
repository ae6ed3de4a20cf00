"""What hpcdata ships: sizes, contents, no trace of a machine. python -m pytest tests/embedded"""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from hpcdata import embedded
from tests import corpora
from tests.embedded import build

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(embedded.path(embedded.TOKENIZER)))


def quickstart_members():
    with tarfile.open(embedded.path(embedded.QUICKSTART)) as tar:
        return {info.name: (info, tar.extractfile(info).read()) for info in tar}


def test_files_are_small():
    assert embedded.path(embedded.QUICKSTART).stat().st_size <= MEGABYTE
    assert embedded.path(embedded.TOKENIZER).stat().st_size <= MEGABYTE
    assert embedded.path(embedded.IMAGE_TOKENIZER).stat().st_size <= 3 * MEGABYTE


def test_unknown_name_lists_what_there_is():
    with pytest.raises(FileNotFoundError, match=r"comes without codebook\.bin.*README\.md.*quickstart\.tar"):
        embedded.path("codebook.bin")


def test_quickstart_is_96_squares_with_captions():
    members = quickstart_members()
    names = list(members)
    assert len(names) == 2 * 96
    for picture, text in zip(names[::2], names[1::2], strict=True):
        assert (picture.removesuffix(".png"), picture.count(".")) == (text.removesuffix(".txt"), 1)
        assert Image.open(io.BytesIO(members[picture][1])).size == (build.SIDE, build.SIDE)
        assert 4 <= len(members[text][1].decode("ascii")) <= 60


def test_quickstart_headers_hold_no_machine():
    for info, _ in quickstart_members().values():
        assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)


def test_tokenizer_has_its_special_tokens(tokenizer):
    assert tokenizer.get_vocab_size() == 4096
    added = tokenizer.get_added_tokens_decoder()
    assert {index: token.content for index, token in added.items()} == {0: "<s>", 1: "</s>", 2: "<pad>"}
    assert all(token.special for token in added.values())


@pytest.mark.parametrize(
    "text",
    [
        "A raccoon opening a green box.",
        "  two spaces,\ttab\nand line feed ",
        "Ünïcode, e\u0301 not in NFC, 漢字, 🎉 and \x00",
        "",
    ],
)
def test_tokenizer_is_lossless(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {0, 1, 2} & set(ids), "control tokens belong to the loader"


def test_tokenizer_knows_every_byte(tokenizer):
    assert {len(token) for token in tokenizer.get_vocab() if tokenizer.token_to_id(token) > 2} >= {1, 2, 3}
    assert sum(len(token) == 1 for token in tokenizer.get_vocab()) == 256


def test_image_tokenizer_is_in_half_precision_and_wastes_no_code():
    weights = load_file(embedded.path(embedded.IMAGE_TOKENIZER))
    assert {tensor.dtype for tensor in weights.values()} == {np.dtype(np.float16)}
    assert len(np.unique(weights["codebook"], axis=0)) >= 4096 - 32, "but for copies of white"


@pytest.mark.slow
@pytest.mark.skipif(not corpora.available("openclipart"), reason="openclipart-png, openclipart-svg are not installed")
def test_quickstart_can_be_made_again(tmp_path):
    """The same captions and, within the difference between Pillow's versions, the same pictures."""
    build.write_quickstart(tmp_path)
    with tarfile.open(tmp_path / embedded.QUICKSTART) as tar:
        made = {info.name: tar.extractfile(info).read() for info in tar}
    shipped = quickstart_members()
    assert list(made) == list(shipped)
    for name, data in made.items():
        if name.endswith(".txt"):
            assert data == shipped[name][1]
        else:
            first, second = (
                np.asarray(Image.open(io.BytesIO(d)).convert("RGB"), int) for d in (data, shipped[name][1])
            )
            assert abs(first - second).mean() < 2, name

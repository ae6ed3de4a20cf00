"""Presets, identities and what building refuses. pytest tests/encoders/image/test_tokenizer.py"""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ImageConfig
from hpcdata.encoders.image import presets
from hpcdata.encoders.image import tokenizer as image
from hpcdata.runs.identities import ImageIdentity
from tests.encoders.image import vqgan_reference as reference


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(image.CHECKPOINT_VARIABLE, raising=False)


@pytest.fixture
def torch_settings():
    """`build` sets torch's global switches: put them back for the other tests."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


OLD_FILE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The beginning of an older file of torch, which is not looked into."""


@pytest.fixture
def tiny_preset(monkeypatch, tmp_path):
    """A preset small enough to build, and its weight file."""
    monkeypatch.setitem(presets.PRESETS, "tiny", presets.Preset(architecture=reference.TINY_LLAMAGEN, file="tiny.pt"))
    torch.save({"model": reference.random_weights(reference.TINY_LLAMAGEN, "llamagen")}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.mark.parametrize(
    ("preset", "codebook_size", "downsample"),
    [
        ("vq16_t2i", 16384, 16),
        ("vq16", 16384, 16),
        ("vq8", 16384, 8),
        ("chameleon", 8192, 16),
        ("vq16_1024", 1024, 16),
        ("vq16_16384", 16384, 16),
        ("llamagen_1024", 1024, 16),
        ("vq16_magvit", 8192, 16),
        ("unidisc_magvit", 8192, 16),
        ("open_magvit2", 262144, 16),
        ("emu3", 32768, 8),
        ("ldm_vq8", 16384, 8),
        ("ldm_vq4", 8192, 4),
        ("amused", 8192, 16),
    ],
)
def test_identity_of_a_preset(tmp_path, preset, codebook_size, downsample):
    path = tmp_path / "weights.pt"
    path.write_bytes(OLD_FILE)
    identity = image.identify(ImageConfig(tokenizer=preset, checkpoint=str(path), precision="bf16"))
    assert identity == ImageIdentity(
        preset=preset,
        codebook_size=codebook_size,
        downsample=downsample,
        sha256=hashlib.sha256(OLD_FILE).hexdigest(),
        precision="bf16",
    )


def test_the_file_may_come_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(OLD_FILE)
    (tmp_path / "b").write_bytes(OLD_FILE + b"b")
    monkeypatch.setenv(image.CHECKPOINT_VARIABLE, str(tmp_path / "a"))
    assert image.identify(ImageConfig(tokenizer="vq16")).sha256 == hashlib.sha256(OLD_FILE).hexdigest()
    explicit = image.identify(ImageConfig(tokenizer="vq16", checkpoint=str(tmp_path / "b")))
    assert explicit.sha256 == hashlib.sha256(OLD_FILE + b"b").hexdigest()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ImageConfig(), "image.tokenizer is not set: choose one of embedded, vq16_t2i"),
        (ImageConfig(tokenizer="vq16_ti2"), r"unknown image.tokenizer=vq16_ti2: did you mean vq16_t2i\? known presets"),
        (ImageConfig(tokenizer="pixels"), "unknown image.tokenizer=pixels: .*known presets: embedded, vq16_t2i"),
        (
            ImageConfig(tokenizer="vq16"),
            r"needs a weight file \(vq_ds16_c2i.pt of LlamaGen\): pass image.checkpoint=FILE",
        ),
        (ImageConfig(tokenizer="chameleon"), "vqgan.ckpt .* or set HPCDATA_IMAGE_CHECKPOINT=FILE"),
        (ImageConfig(tokenizer="vq16", checkpoint="/gone.pt"), "/gone.pt is not a file, check image.checkpoint"),
        (ImageConfig(tokenizer="vq16", checkpoint="/"), "/ is not a file"),
    ],
)
def test_what_identify_refuses(config, message):
    with pytest.raises(UserError, match=message):
        image.identify(config)


@given(side=st.integers(1, 100), rest=st.integers(0, 15))
def test_grid_side(side, rest):
    identity = ImageIdentity(preset="vq16", codebook_size=16384, downsample=16, sha256="", precision="fp32")
    if rest == 0:
        assert image.grid_side(identity, side * 16) == side
        with pytest.raises(UserError, match="resolution=0 is not a multiple"):
            image.grid_side(identity, 0)
    else:
        for resolution in (side * 16 + rest, rest):
            with pytest.raises(UserError, match=f"data.resolution={resolution} is not a multiple of 16"):
                image.grid_side(identity, resolution)


def test_build_makes_what_was_identified(tiny_preset, torch_settings):
    identity = image.identify(ImageConfig(tokenizer="tiny", checkpoint=str(tiny_preset)))
    tokenizer = image.build(identity, str(tiny_preset), "cpu", 1)
    assert (tokenizer.codebook_size, tokenizer.downsample) == (identity.codebook_size, identity.downsample)
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 4, 6)
    assert tokenizer.decode(codes).shape == images.shape


def test_build_fixes_the_arithmetic(tiny_preset, torch_settings):
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.set_num_threads(2)
    identity = image.identify(ImageConfig(tokenizer="tiny", checkpoint=str(tiny_preset)))
    image.build(identity, str(tiny_preset), "cpu", 1)
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.deterministic
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_build_refuses_another_file(tiny_preset):
    identity = image.identify(ImageConfig(tokenizer="tiny", checkpoint=str(tiny_preset)))
    tiny_preset.write_bytes(tiny_preset.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"the plan was made with .*: restore the file"):
        image.build(identity, str(tiny_preset), "cpu", 1)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0:1", "tpu", "cuda:99"])
def test_devices_that_are_none(device):
    with pytest.raises(UserError, match=f"image.device={device}"):
        image.resolve_device(device)


def test_identify_needs_no_torch(tmp_path):
    (tmp_path / "weights.pt").write_bytes(OLD_FILE)
    code = (
        "import sys; from hpcdata.config.schema import ImageConfig; "
        "from hpcdata.encoders.image import tokenizer as image\n"
        "identity = image.identify(ImageConfig(tokenizer='vq16', checkpoint=sys.argv[1]))\n"
        "image.grid_side(identity, 256)\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "weights.pt")], check=True)

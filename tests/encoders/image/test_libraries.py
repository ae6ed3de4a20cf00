"""Tokenizers against the classes of diffusers and transformers.

python -m pytest tests/encoders/image/test_libraries.py
"""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpcdata.base.errors import UserError
from hpcdata.encoders.image import emu3, vqgan
from hpcdata.encoders.image.presets import PRESETS, Emu3Architecture, VqganArchitecture
from tests.encoders.image.test_vqgan import encode, pictures

TINY_LDM = VqganArchitecture(
    codebook_size=64,
    embed_dim=4,
    latent_channels=4,
    lowest_attention=True,
    base_channels=32,
    channel_multipliers=(1, 2, 2),
)
TINY_AMUSED = dataclasses.replace(
    TINY_LDM, embed_dim=16, latent_channels=16, lowest_attention=False, middle_attention=False, pixels="unit"
)
TINY_EMU3 = Emu3Architecture(codebook_size=128, base_channels=32, channel_multipliers=(1, 1, 2, 2), num_res_blocks=1)


@pytest.fixture(autouse=True)
def _seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def diffusers_model(arch: VqganArchitecture):
    diffusers = pytest.importorskip("diffusers")
    num_levels = len(arch.channel_multipliers)
    plain = num_levels - arch.lowest_attention
    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * plain + ("AttnDownEncoderBlock2D",) * arch.lowest_attention,
        up_block_types=("AttnUpDecoderBlock2D",) * arch.lowest_attention + ("UpDecoderBlock2D",) * plain,
        block_out_channels=tuple(arch.base_channels * by for by in arch.channel_multipliers),
        layers_per_block=2,
        latent_channels=arch.latent_channels,
        num_vq_embeddings=arch.codebook_size,
        vq_embed_dim=arch.embed_dim,
        mid_block_add_attention=arch.middle_attention,
    ).eval()
    model.quantize.embedding.weight.data.normal_(std=0.3)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("arch", [TINY_LDM, TINY_AMUSED], ids=["ldm", "amused"])
@torch.inference_mode()
def test_diffusers_vq_model(tmp_path, arch):
    model = diffusers_model(arch)
    save_file(model.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    path = str(tmp_path / "diffusion_pytorch_model.safetensors")
    tokenizer = vqgan.load(path, "tiny", arch, precision="fp32", device="cpu")
    images = pictures(2, 32, 48)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    latents = model.encode(scaled if arch.pixels == "unit" else scaled * 2 - 1).latents
    quantized, _, (_, _, codes) = model.quantize(latents)
    assert len(codes.unique()) > 10
    np.testing.assert_array_equal(encode(tokenizer, images).ravel(), codes.ravel().numpy())
    expected = model.decode(quantized, force_not_quantize=True).sample
    expected = expected if arch.pixels == "unit" else (expected + 1) / 2
    decoded = tokenizer.decode(codes.view(2, 8, 12))
    assert (decoded - (expected * 255).clamp(0, 255)).abs().max() < 0.51


def emu3_model(arch: Emu3Architecture):
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    config = Emu3VQVAEConfig(
        codebook_size=arch.codebook_size,
        base_channels=arch.base_channels,
        channel_multiplier=list(arch.channel_multipliers),
        num_res_blocks=arch.num_res_blocks,
        hidden_size=arch.base_channels * arch.channel_multipliers[-1],
    )
    model = Emu3VQVAE(config).eval()
    model.quantize.embedding.weight.data.normal_()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "model.vqmodel."])
@torch.inference_mode()
def test_emu3(tmp_path, prefix):
    model = emu3_model(TINY_EMU3)
    weights = {prefix + name: weight for name, weight in model.state_dict().items()}
    if prefix:
        weights["model.text_model.embed_tokens.weight"] = torch.zeros(2, 2)
    save_file(weights, tmp_path / "model.safetensors")
    tokenizer = emu3.load(str(tmp_path / "model.safetensors"), "tiny", TINY_EMU3, precision="fp32", device="cpu")
    images = pictures(2, 32, 48)
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    codes = torch.stack(model.encode(scaled, image_sizes=torch.tensor([[32, 48]] * 2)).image_tokens)
    assert len(codes.unique()) > 10
    np.testing.assert_array_equal(encode(tokenizer, images), codes.numpy())
    expected = ((model.decode(codes) + 1) * 127.5).clamp(0, 255)
    assert (tokenizer.decode(codes) - expected).abs().max() < 0.51


@pytest.mark.slow
def test_emu3_refuses_another_tokenizer(tmp_path):
    save_file(diffusers_model(TINY_LDM).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"not a checkpoint for image.tokenizer=emu3: \d+ weights are missing"):
        emu3.load(str(tmp_path / "other.safetensors"), "emu3", TINY_EMU3, precision="fp32", device="cpu")


@pytest.mark.parametrize(("preset", "millions"), [("vq8", 70), ("vq16", 72), ("amused", 146)])
def test_real_architectures_have_the_sizes_that_their_papers_give(preset, millions):
    architecture = PRESETS[preset].architecture
    assert isinstance(architecture, VqganArchitecture)
    with torch.device("meta"):
        network = vqgan.Vqgan(architecture)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == millions

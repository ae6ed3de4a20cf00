"""Emu3's vision tokenizer for single pictures: 32,768 codes for 8 x 8 pixels.

It was made for videos: a picture is shown as four equal frames, which become one grid of codes. The network is that of
transformers (`Emu3VQVAE`); value range, lookup and precision are the same here as for the other tokenizers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpcdata.encoders.image.checkpoints import load_weights
from hpcdata.encoders.image.presets import Emu3Architecture
from hpcdata.encoders.image.quantized import Codebook, Network, QuantizedTokenizer


def load(
    path: str,
    preset: str,
    architecture: Emu3Architecture,
    *,
    precision: str,
    device: str,
    batch_size: int | None = None,
) -> QuantizedTokenizer:
    """The tokenizer with the weights of a checkpoint file. Raises UserError if they are not those of the network."""
    with torch.device("meta"):
        network = Emu3(architecture)
    load_weights(network, path, preset, rename=False)
    return QuantizedTokenizer(network, preset=preset, precision=precision, device=device, batch_size=batch_size)


class Emu3(Network):
    def __init__(self, architecture: Emu3Architecture) -> None:
        from transformers import Emu3VQVAEConfig
        from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

        super().__init__()
        self.architecture = architecture
        config = Emu3VQVAEConfig(
            codebook_size=architecture.codebook_size,
            embed_dim=architecture.embed_dim,
            latent_channels=architecture.embed_dim,
            base_channels=architecture.base_channels,
            channel_multiplier=list(architecture.channel_multipliers),
            num_res_blocks=architecture.num_res_blocks,
            hidden_size=architecture.base_channels * architecture.channel_multipliers[-1],
        )
        config._attn_implementation = "eager"
        model = Emu3VQVAE(config)
        self.num_frames = config.temporal_downsample_factor
        self.encoder = model.encoder
        self.quant_conv = model.quant_conv
        self.quantize = Codebook(architecture.codebook_size, architecture.embed_dim)
        self.post_quant_conv: nn.Module | None = model.post_quant_conv
        self.decoder: nn.Module | None = model.decoder

    def encode(self, pixels: Tensor) -> Tensor:
        frames = pixels.unsqueeze(1).repeat(1, self.num_frames, 1, 1, 1)
        latents = self.encoder(frames).permute(0, 2, 1, 3, 4)
        return self.quant_conv(latents)[:, :, 0]

    def decode(self, latents: Tensor) -> Tensor:
        assert self.decoder is not None
        assert self.post_quant_conv is not None
        grids = latents.unsqueeze(2)
        decoded = self.decoder(self.post_quant_conv(grids).permute(0, 2, 1, 3, 4), grids.permute(0, 2, 1, 3, 4))
        return decoded.view(latents.shape[0], self.num_frames, *decoded.shape[1:])[:, 0]

    def drop_decoder(self) -> None:
        self.decoder = self.post_quant_conv = None

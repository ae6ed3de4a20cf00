"""The embedded image tokenizer: a small convolutional VQ autoencoder whose codes are exact on every machine.

8 x 8 pixels become one of 4096 codes. The encoder is a linear projection of each cell plus a small residual network
that sees its neighbours; the nearest codebook entry is the code; the decoder adds a residual network to a linear
projection back, so that no cell borders show. `training` makes the weights.

Codes are exact. Pixels and activations are integers in [0, 255], weights of the encoder multiples of 2^-10 and biases
of 2^-3; `_require_exact` makes sure that every sum stays below 2^14. Then float32 holds every product and every partial
sum without rounding, in any order: neither the batch, nor the number of threads, nor the instruction set can change a
code. Latents and codebook are integers whose scores stay below 2^23, half an integer apart; ties go to the lower code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hpcdata.base.errors import UserError
from hpcdata.encoders.image.presets import EmbeddedArchitecture
from hpcdata.encoders.image.quantized import check_images
from hpcdata.encoders.image.transfer import to_cpu, to_device

CODEBOOK_SIZE = EmbeddedArchitecture().codebook_size
DOWNSAMPLE = EmbeddedArchitecture().downsample
LATENT_CHANNELS = 32
ACTIVATION_MAX = 255.0
WEIGHT_STEP = 2.0**-10
BIAS_STEP = 2.0**-3
MAX_STEPS = 2047
"""Weights and biases of the encoder are at most so many steps, and entries such integers: fp16 holds them exactly."""
MAX_ROW_SUM = 62.0
"""Of the absolute weights of one output: 255 * 62, and 256 each for the bias and the residual, stay below 2^14."""
MAX_SCORE = 2.0**23
LATENT_STEP = 2.0
LATENT_UNIT = 256.0
"""The decoder's floats are latents / 256."""
LOOKUP_ROWS = 256
"""Latents whose scores are held at a time: 4 MiB of float32, which stay in the cache."""
CHUNK_PIXELS = 2**16
"""Pixels that go through the network at a time: their activations stay in the cache."""


def load(path: str, *, device: str) -> ExactVqTokenizer:
    """The tokenizer of a weight file. Raises UserError for a file that holds another network, or inexact weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _not_ours(path, f"{type(error).__name__}, expected a safetensors file") from None
    network = ExactVq()
    expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            raise _not_ours(path, f"{name} has shape {found.get(name)}, expected {expected.get(name)}")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    _require_exact(network, path)
    return ExactVqTokenizer(network, device)


class ExactVqTokenizer:
    """An `ImageTokenizer` of the embedded network. There is one precision: the exact one.

    On a GPU the encoder computes in float64: convolution kernels for float32 may multiply by fractions (Winograd).
    """

    codebook_size = CODEBOOK_SIZE
    downsample = DOWNSAMPLE

    def __init__(self, network: ExactVq, device: str) -> None:
        self.device = torch.device(device)
        self._dtype = torch.float32 if self.device.type == "cpu" else torch.float64
        network.requires_grad_(False).eval()
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.encoder.to(self._dtype)
        network.codebook.data = network.codebook.data.to(self._dtype)
        self._network = network
        self._reach = _reach(network.codebook)

    def encode(self, images: Tensor) -> Tensor:
        """images: [B, 3, H, W] uint8, H and W multiples of 8 -> [B, H / 8, W / 8] int32 on the CPU."""
        return self.start(images)()

    @torch.inference_mode()
    def start(self, images: Tensor) -> Callable[[], Tensor]:
        """Begins `encode`, see `ImageTokenizer`."""
        check_images(images, DOWNSAMPLE)
        batch, _, height, width = images.shape
        chunk = max(1, CHUNK_PIXELS // (height * width))
        with torch.autocast(self.device.type, enabled=False):
            codes = [self._encode(some) for some in images.split(chunk)]
        return to_cpu(torch.cat(codes).view(batch, height // DOWNSAMPLE, width // DOWNSAMPLE))

    encode_in_fp32 = encode

    def compile(self) -> None:
        """Has no effect: what a compiler makes of the sums need not be exact."""

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, h, w] of any integer dtype -> [B, 3, 8 h, 8 w] uint8 RGB on the CPU."""
        if codes.ndim != 3 or (codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < CODEBOOK_SIZE):
            raise ValueError(f"expected codes [B, h, w] in [0, {CODEBOOK_SIZE}), got shape {list(codes.shape)}")
        chunk = max(1, CHUNK_PIXELS // (codes[0].numel() * DOWNSAMPLE**2))
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat([self._decode(some) for some in codes.split(chunk)]).cpu()

    def _encode(self, images: Tensor) -> Tensor:
        ink = (255 - to_device(images, self.device)).to(self._dtype).contiguous(memory_format=torch.channels_last)
        latents = self._network.encoder(ink).permute(0, 2, 3, 1).reshape(-1, LATENT_CHANNELS)
        return nearest(latents.clamp(-self._reach, self._reach), self._network.codebook).int()

    def _decode(self, codes: Tensor) -> Tensor:
        entries = F.embedding(codes.to(self.device).long(), self._network.codebook).float()
        latents = (entries / LATENT_UNIT).permute(0, 3, 1, 2)
        ink = self._network.decoder(latents.contiguous(memory_format=torch.channels_last))
        return (255.0 - ink * 255.0).round_().clamp_(0, 255).to(torch.uint8).contiguous()


class ExactVq(nn.Module):
    """encoder -> codebook -> decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.codebook = nn.Parameter(torch.zeros(CODEBOOK_SIZE, LATENT_CHANNELS))
        self.decoder = Decoder()


def activate(x: Tensor) -> Tensor:
    """Integers in [0, 255]; in training the gradient passes through the rounding."""
    if torch.is_grad_enabled():
        return round_through(x.clamp(0.0, ACTIVATION_MAX))
    return x.round_().clamp_(0.0, ACTIVATION_MAX)


def round_through(x: Tensor) -> Tensor:
    """Rounds, with the gradient of the identity."""
    return x + (x.round() - x).detach()


def nearest(latents: Tensor, codebook: Tensor) -> Tensor:
    """latents: [N, 32], codebook: [4096, 32], integers -> [N] int64; of equal distances the lower code."""
    half_norms = codebook.square().sum(1) / 2
    codebook = codebook.t().contiguous()
    # argmin |z - c|^2 = argmax z.c - |c|^2 / 2; of equal scores torch's argmax returns the first.
    return torch.cat([torch.addmm(-half_norms, rows, codebook).argmax(1) for rows in latents.split(LOOKUP_ROWS)])


class EncoderBlock(nn.Module):
    def __init__(self, channels: int, kernel_2: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(channels, channels, kernel_2, padding=kernel_2 // 2)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.conv_2(activate(self.conv_1(x))) + x)


class Encoder(nn.Module):
    """ink: [B, 3, H, W], 255 - RGB -> integers [B, 32, H / 8, W / 8]; white paper continues beyond the border."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, LATENT_CHANNELS, 8, stride=8)
        self.stem = nn.Conv2d(3, 48, 4, stride=4)
        self.fine = nn.Sequential(EncoderBlock(48, 3), EncoderBlock(48, 3))
        self.down = nn.Conv2d(48, 128, 2, stride=2)
        self.coarse = nn.Sequential(EncoderBlock(128, 1), EncoderBlock(128, 1), EncoderBlock(128, 1))
        self.out = nn.Conv2d(128, LATENT_CHANNELS, 1)

    def forward(self, ink: Tensor) -> Tensor:
        x = self.fine(activate(self.stem(ink)))
        x = self.coarse(activate(self.down(x)))
        latents = (self.linear(ink) + self.out(x)) / LATENT_STEP
        return round_through(latents) if torch.is_grad_enabled() else latents.round_()


class DecoderBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_2(F.relu(self.conv_1(F.relu(x))))


class Decoder(nn.Module):
    """latents: [B, 32, h, w] / 256 -> ink [B, 3, 8 h, 8 w] in units of white, not yet clamped."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(LATENT_CHANNELS, 3 * DOWNSAMPLE**2, 1)
        self.stem = nn.Conv2d(LATENT_CHANNELS, 128, 3, padding=1)
        self.coarse = nn.Sequential(DecoderBlock(128), DecoderBlock(128))
        self.up_1 = nn.Conv2d(128, 64 * 4, 1)
        self.middle = nn.Sequential(DecoderBlock(64), DecoderBlock(64))
        self.up_2 = nn.Conv2d(64, 32 * 4, 1)
        self.fine = nn.Sequential(DecoderBlock(32), DecoderBlock(32))
        self.out = nn.Conv2d(32, 3 * 4, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.coarse(self.stem(latents))
        x = self.middle(F.pixel_shuffle(self.up_1(x), 2))
        x = self.fine(F.pixel_shuffle(self.up_2(x), 2))
        details = F.pixel_shuffle(self.out(F.relu(x)), 2)
        return F.pixel_shuffle(self.linear(latents), DOWNSAMPLE) + details


def _require_exact(network: ExactVq, path: str) -> None:
    """Raises UserError unless the module's promise holds for these weights."""
    for name, module in network.encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            sums = module.weight.abs().flatten(1).sum(1)
            on_grid = _is_integer(module.weight / WEIGHT_STEP) and _is_integer(module.bias / BIAS_STEP)
            if not on_grid or sums.max() > MAX_ROW_SUM or module.bias.abs().max() > MAX_STEPS * BIAS_STEP:
                raise _not_ours(path, f"encoder.{name} could round")
    codebook = network.codebook
    scores = codebook.abs() @ _reach(codebook) + codebook.square().sum(1) / 2
    if not _is_integer(codebook) or scores.max() >= MAX_SCORE:
        raise _not_ours(path, "distances to its codebook could round")


def _reach(codebook: Tensor) -> Tensor:
    """The box that holds all entries. Latents are moved into it, which bounds their products with entries."""
    return codebook.abs().amax(0)


def _is_integer(tensor: Tensor) -> bool:
    return bool((tensor == tensor.round()).all())


def _not_ours(path: str, problem: str) -> UserError:
    return UserError(f"{path} is not an image tokenizer of hpcdata's own training: {problem}")

"""Reading image tokenizers as their authors published them, without running what a hostile file may hold.

Known layouts, all brought to the names of our networks (those of taming-transformers for `vqgan.Vqgan`):

    taming, Chameleon, LDM      {"state_dict": {"encoder.down.0.block.0...", "loss...."}}
    LlamaGen                    {"model": {"encoder.conv_blocks.0.res.0...", "quantize.codebook_used"}}
    Janus                       LlamaGen's names below `gen_vision_model.`
    transformers                `model.vqmodel.encoder.down...`; Janus counts `decoder.up` from the lowest resolution,
                                Chameleon has no decoder
    diffusers                   `encoder.down_blocks.0.resnets.0...`, `decoder.up_blocks` from the lowest resolution;
                                attention as linear layers
    Show-o                      `encoder.quant_conv`, `decoder.post_quant_conv`, a table of bits as `quantize.embedding`
    Lightning with averages     `model_ema.encoderconv_inweight`: the averaged weights are the ones that are used

Pickles are read with `weights_only=True` and stand-ins for a few names that Lightning writes beside the weights, so
that neither Lightning nor any code in the file is needed. `.safetensors` files hold no code at all.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hpcdata.base.errors import UserError
from hpcdata.encoders.image.presets import PRESETS, VqganArchitecture

if TYPE_CHECKING:
    from torch import Tensor

    from hpcdata.encoders.image.quantized import Network

_CONTAINERS = ("model", "state_dict")
_PREFIXES = ("", "gen_vision_model.", "model.vqmodel.", "vqmodel.")
_CODEBOOK = "quantize.embedding.weight"
_FIRST = "encoder.conv_in.weight"
"""Tells where a tokenizer without a codebook begins."""
_AVERAGED = "model_ema."
_UNUSED = re.compile(r"loss\.|quantize\.(codebook_used|embedding|power_vals|mask|zero|codebook)$")
"""Of the training: discriminator, perceptual loss, usage counts; tables that numbers alone determine."""
_RENAMES = (
    (re.compile(r"^encoder\.conv_blocks\.(\d+)\."), r"encoder.down.\1."),
    (re.compile(r"^decoder\.conv_blocks\.(\d+)\."), r"decoder.up.\1."),
    (re.compile(r"^((?:encoder\.down|decoder\.up)\.\d+)\.res\."), r"\1.block."),
    (re.compile(r"^(encoder|decoder)\.mid\.0\."), r"\1.mid.block_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.1\."), r"\1.mid.attn_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.2\."), r"\1.mid.block_2."),
    (re.compile(r"^encoder\.quant_conv\."), "quant_conv."),
    (re.compile(r"^decoder\.post_quant_conv\."), "post_quant_conv."),
    (re.compile(r"\.(down|up)_blocks\.(\d+)\."), r".\1.\2."),
    (re.compile(r"\.mid_block\.resnets\.0\."), ".mid.block_1."),
    (re.compile(r"\.mid_block\.attentions\.0\."), ".mid.attn_1."),
    (re.compile(r"\.mid_block\.resnets\.1\."), ".mid.block_2."),
    (re.compile(r"\.resnets\."), ".block."),
    (re.compile(r"\.attentions\."), ".attn."),
    (re.compile(r"\.(down|up)samplers\.0\."), r".\1sample."),
    (re.compile(r"\.conv_norm_out\."), ".norm_out."),
    (re.compile(r"\.conv_shortcut\."), ".nin_shortcut."),
    (re.compile(r"(\.attn(?:\.\d+|_1))\.group_norm\."), r"\1.norm."),
    (re.compile(r"(\.attn(?:\.\d+|_1))\.(?:to_q|query)\."), r"\1.q."),
    (re.compile(r"(\.attn(?:\.\d+|_1))\.(?:to_k|key)\."), r"\1.k."),
    (re.compile(r"(\.attn(?:\.\d+|_1))\.(?:to_v|value)\."), r"\1.v."),
    (re.compile(r"(\.attn(?:\.\d+|_1))\.(?:to_out\.0|proj_attn)\."), r"\1.proj_out."),
)
_NUM_SHOWN = 3


class _StandIn:
    """What an object of Lightning becomes while a checkpoint is read: it takes everything and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        pass


_STAND_INS = (
    (_StandIn, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_StandIn, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
    (_StandIn, "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint"),
    (_StandIn, "lightning.pytorch.callbacks.early_stopping.EarlyStopping"),
    (_StandIn, "argparse.Namespace"),
    (_StandIn, "numpy.core.multiarray.scalar"),
    (_StandIn, "numpy.dtype"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (OrderedDict, "lightning.fabric.utilities.data.AttributeDict"),
)


def load_weights(network: Network, path: str, preset: str, *, rename: bool = True) -> None:
    """Fills a network built on the meta device, in fp32. Drops its decoder if the file has none.

    rename: to the names of taming-transformers. Raises UserError: unreadable file, code in it, missing or unexpected
    weights, other shapes.
    """
    first = _CODEBOOK if _CODEBOOK in network.state_dict() else _FIRST
    weights = _averaged(_select(_read(path, first), path, first))
    weights = _to_own_names(weights) if rename else weights
    if not any(name.startswith("decoder.") for name in weights):
        network.drop_decoder()
        weights = {name: weight for name, weight in weights.items() if not name.startswith("post_quant_conv.")}
    expected = network.state_dict()
    weights = {name: _as_convolution(weight, expected.get(name)) for name, weight in weights.items()}
    _check(weights, expected, path, preset)
    floats = {name: weight.float().contiguous() for name, weight in weights.items()}
    network.load_state_dict(floats, strict=True, assign=True)


def _read(path: str, first: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return _read_safetensors(path, first)
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    for container in _CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, Mapping):
            content = inner
            break
    return {name: value for name, value in content.items() if isinstance(name, str) and _is_weight(value)}


def _read_safetensors(path: str, first: str) -> dict[str, Tensor]:
    """Only the weights below the first prefix that holds a tokenizer: Janus files are mostly a language model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            prefix = _prefix(file.keys(), first) or ""
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a .safetensors file: {error}") from None


def _read_pickle(path: str) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(list(_STAND_INS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        name = re.search(r"(?:GLOBAL|whose module) ([\w.]+)", str(error))
        if name:
            raise UserError(
                f"{path} mentions {name[1]}, and could run code when loaded: it is not loaded; "
                f"save its weights alone, as .safetensors"
            ) from None
        raise UserError(f"{path} is not a checkpoint that torch can read ({type(error).__name__})") from None


def _is_weight(value: Any) -> bool:
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _prefix(names: Collection[str], first: str) -> str | None:
    return next((prefix for prefix in _PREFIXES if prefix + first in names), None)


def _select(weights: Mapping[str, Tensor], path: str, first: str) -> dict[str, Tensor]:
    """The tokenizer's own weights, without the prefix and without what only training needs."""
    prefix = _prefix(weights.keys(), first)
    if prefix is None:
        raise UserError(f"{path} holds no image tokenizer: there is no {first} among its weights ({_shown(weights)})")
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {name: weight for name, weight in own.items() if not _UNUSED.match(name)}


def _averaged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts moving averages, which are named without dots, in the place of the weights they are averages of."""
    trained = {name: weight for name, weight in weights.items() if not name.startswith(_AVERAGED)}
    return {name: weights.get(_AVERAGED + name.replace(".", ""), weight) for name, weight in trained.items()}


def _as_convolution(weight: Tensor, expected: Tensor | None) -> Tensor:
    """A linear layer's matrix as that of a convolution of 1 x 1, where the network has one."""
    if expected is not None and weight.ndim == 2 and expected.ndim == 4 and expected.shape[2:] == (1, 1):
        return weight[:, :, None, None]
    return weight


def _to_own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = weight
    if "decoder.up.0.upsample.conv.weight" not in renamed:
        return renamed
    highest = max(int(match[1]) for match in map(re.compile(r"decoder\.up\.(\d+)\.").match, renamed) if match)
    return {
        re.sub(r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up.{highest - int(match[1])}.", name): weight
        for name, weight in renamed.items()
    }


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str, preset: str) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    others = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (others, "of another shape"))
    problems = [f"{len(names)} weights are {what} ({_shown(names)})" for names, what in kinds if names]
    if problems:
        raise UserError(
            f"{path} is not a checkpoint for image.tokenizer={preset}: {'; '.join(problems)}. "
            f"{_hint(found.get(_CODEBOOK), preset)}"
        )


def _hint(codebook: Tensor | None, preset: str) -> str:
    fitting = [
        name
        for name, known in PRESETS.items()
        if isinstance(known.architecture, VqganArchitecture)
        and codebook is not None
        and list(codebook.shape) == [known.architecture.codebook_size, known.architecture.embed_dim]
        and name != preset
    ]
    file = f"{preset} needs {PRESETS[preset].file}" if preset in PRESETS else "Use the file that the preset needs"
    return f"Its codebook would fit {' or '.join(fitting)}; {file}" if fitting else file


def _shown(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_NUM_SHOWN])
    return first + (", ..." if len(names) > _NUM_SHOWN else "")

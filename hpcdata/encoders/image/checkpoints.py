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

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hpcdata.base.errors import UserError
from hpcdata.encoders.image.presets import LOOKUPS, PRESETS, Architecture, VqganArchitecture
from hpcdata.encoders.image.weight_names import (
    CODEBOOK,
    FIRST,
    averaged,
    prefix_of,
    select,
    shown,
    stated_lookup,
    to_own_names,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hpcdata.encoders.image.quantized import Network

_CONTAINERS = ("model", "state_dict")


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
    first = CODEBOOK if CODEBOOK in network.state_dict() else FIRST
    found = _read(path, first)
    check_lookup(found.keys(), path, preset, network.architecture)
    weights = averaged(select(found, path, first))
    weights = to_own_names(weights) if rename else weights
    if not any(name.startswith("decoder.") for name in weights):
        network.drop_decoder()
        weights = {name: weight for name, weight in weights.items() if not name.startswith("post_quant_conv.")}
    expected = network.state_dict()
    weights = {name: _as_convolution(weight, expected.get(name)) for name, weight in weights.items()}
    _check(weights, expected, path, preset)
    floats = {name: weight.float().contiguous() for name, weight in weights.items()}
    network.load_state_dict(floats, strict=True, assign=True)


def check_lookup(names: Collection[str], path: str, preset: str, architecture: Architecture) -> None:
    """Raises UserError when the layout of a file states another lookup than the network has: codes would be others.

    `names`: of all weights, as they stand in the file.
    """
    stated = stated_lookup(names)
    if stated is None or not isinstance(architecture, VqganArchitecture) or architecture.lookup == stated[0]:
        return
    lookup, layout = stated
    wanted = dataclasses.replace(architecture, lookup=lookup)
    fitting = [name for name, known in PRESETS.items() if known.architecture == wanted]
    raise UserError(
        f"{path} has the layout of {layout}, whose codes are found by {LOOKUPS[lookup]}; image.tokenizer={preset} "
        f"finds them by {LOOKUPS[architecture.lookup]}, and most codes would be others: "
        + (f"use image.tokenizer={' or '.join(fitting)}" if fitting else f"{preset} needs {file_of(preset)}")
    )


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
            prefix = prefix_of(file.keys(), first) or ""
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


def _as_convolution(weight: Tensor, expected: Tensor | None) -> Tensor:
    """A linear layer's matrix as that of a convolution of 1 x 1, where the network has one."""
    if expected is not None and weight.ndim == 2 and expected.ndim == 4 and expected.shape[2:] == (1, 1):
        return weight[:, :, None, None]
    return weight


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str, preset: str) -> None:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    others = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = ((missing, "missing"), (unexpected, "unexpected"), (others, "of another shape"))
    problems = [f"{len(names)} weights are {what} ({shown(names)})" for names, what in kinds if names]
    if problems:
        raise UserError(
            f"{path} is not a checkpoint for image.tokenizer={preset}: {'; '.join(problems)}. "
            f"{_hint(found.get(CODEBOOK), preset)}"
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
    file = f"{preset} needs {file_of(preset)}"
    return f"Its codebook would fit {' or '.join(fitting)}; {file}" if fitting else file


def file_of(preset: str) -> str:
    return PRESETS[preset].file if preset in PRESETS else "a file of its own network"

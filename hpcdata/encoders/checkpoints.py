"""Reading VQGAN checkpoints as their authors published them, without running what a hostile file may hold.

Known layouts, all brought to the names of `vqgan.Vqgan` (those of taming-transformers):

    taming, Chameleon, Liquid   {"state_dict": {"encoder.down.0.block.0...", "loss...."}}
    LlamaGen                    {"model": {"encoder.conv_blocks.0.res.0...", "quantize.codebook_used"}}
    Janus                       LlamaGen's names below `gen_vision_model.`
    transformers                `model.vqmodel.encoder.down...`; Janus counts `decoder.up` from the lowest resolution,
                                Chameleon has no decoder

Pickles are read with `weights_only=True` and stand-ins for a few names that Lightning writes beside the weights, so
that neither Lightning nor any code in the file is needed. `.safetensors` files hold no code at all.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hpcdata.encoders.image import PRESETS
from hpcdata.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hpcdata.encoders.vqgan import Vqgan

_CONTAINERS = ("model", "state_dict")
_PREFIXES = ("", "gen_vision_model.", "model.vqmodel.", "vqmodel.")
_CODEBOOK = "quantize.embedding.weight"
_UNUSED = re.compile(r"loss\.|quantize\.codebook_used$")
"""Of the training: discriminator, perceptual loss, usage counts."""
_RENAMES = (
    (re.compile(r"^encoder\.conv_blocks\.(\d+)\."), r"encoder.down.\1."),
    (re.compile(r"^decoder\.conv_blocks\.(\d+)\."), r"decoder.up.\1."),
    (re.compile(r"^((?:encoder\.down|decoder\.up)\.\d+)\.res\."), r"\1.block."),
    (re.compile(r"^(encoder|decoder)\.mid\.0\."), r"\1.mid.block_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.1\."), r"\1.mid.attn_1."),
    (re.compile(r"^(encoder|decoder)\.mid\.2\."), r"\1.mid.block_2."),
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


def load_vqgan_weights(network: Vqgan, path: str, preset: str) -> None:
    """Fills a network built on the meta device, in fp32. Sets `network.decoder` to None if the file has none.

    Raises UserError: unreadable file, code in it, missing or unexpected weights, other shapes.
    """
    weights = _to_own_names(_select(_read(path), path))
    if not any(name.startswith("decoder.") for name in weights):
        network.decoder = network.post_quant_conv = None
        weights = {name: weight for name, weight in weights.items() if not name.startswith("post_quant_conv.")}
    _check(weights, network.state_dict(), path, preset)
    floats = {name: weight.float().contiguous() for name, weight in weights.items()}
    network.load_state_dict(floats, strict=True, assign=True)


def _read(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    for container in _CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, Mapping):
            content = inner
            break
    return {name: value for name, value in content.items() if isinstance(name, str) and _is_weight(value)}


def _read_safetensors(path: str) -> dict[str, Tensor]:
    """Only the weights below the first prefix that holds a codebook: Janus files are mostly a language model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            prefix = _prefix(file.keys()) or ""
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


def _prefix(names: Collection[str]) -> str | None:
    return next((prefix for prefix in _PREFIXES if prefix + _CODEBOOK in names), None)


def _select(weights: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The VQGAN's own weights, without the prefix and without what only training needs."""
    prefix = _prefix(weights.keys())
    if prefix is None:
        raise UserError(f"{path} holds no VQGAN: there is no {_CODEBOOK} among its weights ({_shown(weights)})")
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {name: weight for name, weight in own.items() if not _UNUSED.match(name)}


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
            f"{_hint(found[_CODEBOOK], preset)}"
        )


def _hint(codebook: Tensor, preset: str) -> str:
    fitting = [
        name
        for name, known in PRESETS.items()
        if list(codebook.shape) == [known.architecture.codebook_size, known.architecture.embed_dim] and name != preset
    ]
    file = f"{preset} needs {PRESETS[preset].file}" if preset in PRESETS else "Use the file that the preset needs"
    return f"Its codebook would fit {' or '.join(fitting)}; {file}" if fitting else file


def _shown(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_NUM_SHOWN])
    return first + (", ..." if len(names) > _NUM_SHOWN else "")

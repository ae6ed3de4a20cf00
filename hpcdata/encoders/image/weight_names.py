"""Names of weights in the files that authors publish: where the tokenizer begins, what only training needs, and how the
layout names what our networks have (the names of taming-transformers). No torch: the login node knows them as well.

A layout also states how a code is found among the entries of its codebook, which shapes do not tell: LlamaGen's and
Janus's programs compare after L2 normalisation, those of taming, Chameleon, LDM and diffusers do not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal, TypeVar

from hpcdata.base.errors import UserError

T = TypeVar("T")

CODEBOOK = "quantize.embedding.weight"
FIRST = "encoder.conv_in.weight"
"""Tells where a tokenizer without a codebook begins."""
_PREFIXES = ("", "gen_vision_model.", "model.vqmodel.", "vqmodel.")
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
_LLAMAGEN = re.compile(r"encoder\.conv_blocks\.|quantize\.codebook_used$")
_DIFFUSERS = "encoder.down_blocks."
_TAMING = "encoder.down."
_LOWEST_FIRST = "decoder.up.0.upsample.conv.weight"
"""There in transformers' Janus, which counts from the lowest resolution; taming's first level is the last to run."""


def prefix_of(names: Collection[str], first: str) -> str | None:
    """What stands before the names of the tokenizer, None where there is none."""
    return next((prefix for prefix in _PREFIXES if prefix + first in names), None)


def select(weights: Mapping[str, T], path: str, first: str) -> dict[str, T]:
    """The tokenizer's own weights, without the prefix and without what only training needs."""
    prefix = prefix_of(weights.keys(), first)
    if prefix is None:
        raise UserError(f"{path} holds no image tokenizer: there is no {first} among its weights ({shown(weights)})")
    own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
    return {name: weight for name, weight in own.items() if not _UNUSED.match(name)}


def averaged(weights: Mapping[str, T]) -> dict[str, T]:
    """Puts moving averages, which are named without dots, in the place of the weights they are averages of."""
    trained = {name: weight for name, weight in weights.items() if not name.startswith(_AVERAGED)}
    return {name: weights.get(_AVERAGED + name.replace(".", ""), weight) for name, weight in trained.items()}


def to_own_names(weights: Mapping[str, T]) -> dict[str, T]:
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = weight
    if _LOWEST_FIRST not in renamed:
        return renamed
    highest = max(int(match[1]) for match in map(re.compile(r"decoder\.up\.(\d+)\.").match, renamed) if match)
    return {
        re.sub(r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up.{highest - int(match[1])}.", name): weight
        for name, weight in renamed.items()
    }


def stated_lookup(names: Collection[str]) -> tuple[Literal["cosine", "euclidean"], str] | None:
    """How the layout of a file finds codes, and whose layout it is. `names`: all of the file, as they stand there.

    None without a codebook.
    """
    prefix = prefix_of(names, CODEBOOK)
    if prefix is None:
        return None
    own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    if any(map(_LLAMAGEN.match, own)):
        return "cosine", "LlamaGen"
    if _LOWEST_FIRST in own:
        return "cosine", "Janus in transformers"
    if any(name.startswith(_DIFFUSERS) for name in own):
        return "euclidean", "diffusers"
    if any(name.startswith(_TAMING) for name in own):
        return "euclidean", "taming-transformers and Chameleon"
    return None


def shown(names: Collection[str]) -> str:
    first = ", ".join(list(names)[:_NUM_SHOWN])
    return first + (", ..." if len(names) > _NUM_SHOWN else "")

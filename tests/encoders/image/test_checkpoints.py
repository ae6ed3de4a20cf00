"""Published checkpoint layouts, hostile files, wrong files. pytest tests/encoders/image/test_checkpoints.py"""

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hpcdata.base.errors import UserError
from hpcdata.encoders.image import vqgan
from hpcdata.encoders.image.tokenizer import PRESETS
from tests.encoders.image import vqgan_reference as reference

Weights = dict[str, torch.Tensor]


def load(path: Path, arch=reference.TINY_TAMING, preset: str = "vq16_1024") -> vqgan.Vqgan:
    return vqgan.load(str(path), preset, arch, precision="fp32", device="cpu")._network


def same_weights(left: vqgan.Vqgan, right: vqgan.Vqgan) -> bool:
    left_state, right_state = left.state_dict(), right.state_dict()
    return left_state.keys() == right_state.keys() and all(
        torch.equal(value, right_state[name]) for name, value in left_state.items()
    )


@pytest.fixture
def taming() -> Weights:
    return reference.random_weights(reference.TINY_TAMING, "taming")


@pytest.fixture
def llamagen() -> Weights:
    return reference.random_weights(reference.TINY_LLAMAGEN, "llamagen")


def test_training_leftovers_are_dropped(tmp_path, taming, llamagen):
    torch.save({"state_dict": taming}, tmp_path / "bare.ckpt")
    more = taming | {"loss.discriminator.main.0.weight": torch.zeros(3), "loss.logvar": torch.zeros(())}
    torch.save({"state_dict": more, "epoch": 3, "global_step": 9}, tmp_path / "more.ckpt")
    assert same_weights(load(tmp_path / "bare.ckpt"), load(tmp_path / "more.ckpt"))
    torch.save({"model": llamagen | {"quantize.codebook_used": torch.zeros(65536)}}, tmp_path / "vq.pt")
    load(tmp_path / "vq.pt", reference.TINY_LLAMAGEN, "vq16")


def test_janus_file_is_llamagens_below_a_prefix(tmp_path, llamagen):
    torch.save({"model": llamagen}, tmp_path / "vq.pt")
    janus = {f"gen_vision_model.{name}": value for name, value in llamagen.items()}
    save_file(janus | {"language_model.lm_head.weight": torch.zeros(9)}, tmp_path / "model.safetensors")
    torch.save(janus, tmp_path / "pytorch_model.bin")
    plain = load(tmp_path / "vq.pt", reference.TINY_LLAMAGEN, "vq16_t2i")
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert same_weights(plain, load(tmp_path / name, reference.TINY_LLAMAGEN, "vq16_t2i"))


def test_transformers_layouts(tmp_path, llamagen, taming):
    """transformers counts the decoder's levels from below and names blocks as taming does; Chameleon has no decoder."""
    num_levels = len(reference.TINY_LLAMAGEN.channel_multipliers)
    own = load_own(tmp_path, llamagen, reference.TINY_LLAMAGEN)
    converted = {}
    for name, value in own.state_dict().items():
        parts = name.split(".")
        if parts[:2] == ["decoder", "up"]:
            parts[2] = str(num_levels - 1 - int(parts[2]))
        converted["model.vqmodel." + ".".join(parts)] = value.contiguous()
    save_file(converted, tmp_path / "janus.safetensors")
    assert same_weights(own, load(tmp_path / "janus.safetensors", reference.TINY_LLAMAGEN))
    encoder = {f"model.vqmodel.{name}": value for name, value in taming.items() if not name.startswith("decoder.")}
    save_file(encoder, tmp_path / "chameleon.safetensors")
    tokenizer = vqgan.load(
        str(tmp_path / "chameleon.safetensors"), "chameleon", reference.TINY_TAMING, precision="fp32", device="cpu"
    )
    with pytest.raises(UserError, match="no decoder"):
        tokenizer.decode(torch.zeros(1, 1, 1, dtype=torch.int32))
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    ref = reference.Reference(taming, reference.TINY_TAMING, "taming")
    assert (tokenizer.encode(images).numpy() == ref.encode(images.permute(0, 2, 3, 1).numpy())).all()


def renamed(weights: Weights, style: str) -> Weights:
    """Weights of taming's names as another program saves them, without what this test does not look at."""
    if style == "taming":
        return weights
    if style == "transformers' chameleon":  # which has no decoder
        kept = {name: value for name, value in weights.items() if not name.startswith(("decoder.", "post_quant_conv."))}
        return {f"model.vqmodel.{name}": value for name, value in kept.items()}
    if style == "transformers' janus":
        last = max(int(name.split(".")[2]) for name in weights if name.startswith("decoder.up."))
        parts = [(name.split("."), value) for name, value in weights.items()]
        turned = {
            ".".join([*p[:2], str(last - int(p[2])), *p[3:]] if p[:2] == ["decoder", "up"] else p): value
            for p, value in parts
        }
        return {f"model.vqmodel.{name}": value for name, value in turned.items()}
    assert style == "diffusers"
    changes = (("encoder.down.", "encoder.down_blocks."), ("decoder.up.", "decoder.up_blocks."))
    for old, new in changes:
        weights = {name.replace(old, new): value for name, value in weights.items()}
    return weights


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("style", "lookup"),
    [
        ("llamagen", "cosine"),
        ("janus", "cosine"),
        ("renamed, with llamagen's counts", "cosine"),
        ("transformers' janus", "cosine"),
        ("taming", "euclidean"),
        ("transformers' chameleon", "euclidean"),
        ("diffusers", "euclidean"),
    ],
)
def test_a_layout_states_its_lookup(tmp_path, style, lookup, suffix):
    """Equal shapes, and still not the network: such a file gave other codes without a word."""
    if style in ("llamagen", "janus"):
        weights = reference.random_weights(reference.TINY_TAMING, "llamagen")
        weights = weights if style == "llamagen" else {f"gen_vision_model.{name}": weights[name] for name in weights}
    elif style == "renamed, with llamagen's counts":
        weights = reference.random_weights(reference.TINY_TAMING, "taming")
        weights["quantize.codebook_used"] = torch.zeros(65536)
    else:
        weights = renamed(reference.random_weights(reference.TINY_TAMING, "taming"), style)
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save({"model": weights}, path)
    else:
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    archs = {"euclidean": reference.TINY_TAMING, "cosine": reference.TINY_LLAMAGEN_WIDE}
    other = archs["euclidean" if lookup == "cosine" else "cosine"]
    with pytest.raises(UserError, match=r"has the layout of .*, whose codes are found by .*most codes would be others"):
        load(path, other)
    if style != "diffusers":  # whose other names are left out here
        assert load(path, archs[lookup]).quantize.is_cosine is (lookup == "cosine")


def load_own(tmp_path: Path, weights: Weights, arch) -> vqgan.Vqgan:
    torch.save({"model": weights}, tmp_path / "own.pt")
    return load(tmp_path / "own.pt", arch)


def test_half_precision_files_become_fp32(tmp_path, taming):
    save_file({name: value.bfloat16() for name, value in taming.items()}, tmp_path / "bf16.safetensors")
    assert {value.dtype for value in load(tmp_path / "bf16.safetensors").state_dict().values()} == {torch.float32}


def test_lightning_objects_need_no_lightning(tmp_path, taming, monkeypatch):
    """Old Lightning keys its callbacks' states by class, and keeps hyper-parameters in a dict of its own."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = checkpoint  # type: ignore[attr-defined]
    parsing = types.ModuleType("pytorch_lightning.utilities.parsing")
    attributes = type("AttributeDict", (dict,), {"__module__": parsing.__name__})
    parsing.AttributeDict = attributes  # type: ignore[attr-defined]
    for fake in (module, parsing):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
        monkeypatch.setitem(sys.modules, fake.__name__.rpartition(".")[0], types.ModuleType("parent"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    content = {
        "state_dict": taming,
        "callbacks": {checkpoint: {"best_model_score": torch.tensor(0.5), "state": checkpoint()}},
        "hyper_parameters": attributes(lr=0.1),
    }
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.undo()
    load(tmp_path / "last.ckpt")


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_does_not_run(tmp_path, taming, save):
    target = tmp_path / "owned"
    save({"state_dict": taming, "callbacks": Malicious(target)}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match=r"evil.ckpt (mentions [\w.]+, and could run code|is not a checkpoint)"):
        load(tmp_path / "evil.ckpt")
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists(), "the attack itself must work"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ckpt", b"", "not a checkpoint that torch can read"),
        ("a.ckpt", b"<html>404</html>" * 50, "not a checkpoint that torch can read"),
        ("a.safetensors", b"x" * 99, "not a .safetensors file"),
        ("a.ckpt", [torch.zeros(3)], "holds a list"),
        ("a.ckpt", {"state_dict": {"a.weight": torch.zeros(3), 5: 6}}, r"holds no image tokenizer.*\(a.weight\)"),
        ("a.ckpt", {"model": 7}, "holds no image tokenizer"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_named(tmp_path, taming):
    taming["encoder.mid.block_9.conv1.weight"] = taming.pop("encoder.conv_in.weight")
    taming["decoder.conv_out.bias"] = torch.zeros(4)
    torch.save({"state_dict": taming}, tmp_path / "odd.ckpt")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "odd.ckpt")
    message = str(caught.value)
    assert "odd.ckpt is not a checkpoint for image.tokenizer=vq16_1024" in message
    assert "1 weights are missing (encoder.conv_in.weight)" in message
    assert "1 weights are unexpected (encoder.mid.block_9.conv1.weight)" in message
    assert "1 weights are of another shape (decoder.conv_out.bias [4] instead of [3])" in message
    assert "vqgan_imagenet_f16_1024" in message


def test_a_checkpoint_of_another_preset_names_the_one_that_fits(tmp_path, taming):
    taming["quantize.embedding.weight"] = torch.zeros(8192, 256)
    torch.save({"state_dict": taming}, tmp_path / "vqgan.ckpt")
    with pytest.raises(UserError, match="Its codebook would fit chameleon; vq16_1024 needs last"):
        vqgan.load(
            str(tmp_path / "vqgan.ckpt"), "vq16_1024", PRESETS["vq16_1024"].architecture, precision="fp32", device="cpu"
        )


@pytest.mark.slow
def test_agrees_with_the_networks_in_transformers(tmp_path):
    """The same random weights in transformers' Chameleon encoder and Janus decoder."""
    from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAE

    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    arch = reference.TINY_CHAMELEON
    sizes = {
        "base_channels": arch.base_channels,
        "channel_multiplier": list(arch.channel_multipliers),
        "num_res_blocks": arch.num_res_blocks,
        "latent_channels": arch.latent_channels,
        "embed_dim": arch.embed_dim,
        "num_embeddings": arch.codebook_size,
    }
    theirs = ChameleonVQVAE(ChameleonVQVAEConfig(**sizes)).eval()
    torch.nn.init.normal_(theirs.quantize.embedding.weight)
    save_file({name: value.contiguous() for name, value in theirs.state_dict().items()}, tmp_path / "c.safetensors")
    ours = vqgan.load(str(tmp_path / "c.safetensors"), "chameleon", arch, precision="fp32", device="cpu")
    with torch.inference_mode():
        codes = theirs.encode(images / 127.5 - 1).image_tokens.view(2, 32, 32)
    assert torch.equal(ours.encode(images), codes.int())

    arch = reference.TINY_LLAMAGEN
    sizes |= {
        "channel_multiplier": list(arch.channel_multipliers),
        "num_res_blocks": arch.num_res_blocks,
        "embed_dim": arch.embed_dim,
        "num_embeddings": arch.codebook_size,
    }
    janus = JanusVQVAE(JanusVQVAEConfig(**sizes, num_patches=16)).eval()
    torch.nn.init.normal_(janus.quantize.embedding.weight)
    janus_weights = {f"model.vqmodel.{name}": value.contiguous() for name, value in janus.state_dict().items()}
    save_file(janus_weights, tmp_path / "j.safetensors")
    ours = vqgan.load(str(tmp_path / "j.safetensors"), "vq16_t2i", arch, precision="fp32", device="cpu")
    codes = torch.randint(0, arch.codebook_size, (2, 16, 16))
    with torch.inference_mode():
        expected = (janus.decode(codes.view(2, 256)) * 127.5 + 127.5).clamp(0, 255)
    assert (ours.decode(codes) - expected).abs().max() < 0.51

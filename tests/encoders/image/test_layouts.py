"""Weight files are looked into without torch.   pytest tests/encoders/image/test_layouts.py"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ImageConfig
from hpcdata.encoders.image import layouts, tokenizer
from hpcdata.encoders.image.presets import PRESETS, VqganArchitecture
from hpcdata.encoders.image.vqgan import Vqgan

VQGANS = [name for name, preset in PRESETS.items() if isinstance(preset.architecture, VqganArchitecture)]


def network(preset: str) -> dict[str, torch.Tensor]:
    architecture = PRESETS[preset].architecture
    assert isinstance(architecture, VqganArchitecture)
    with torch.device("meta"):
        weights = dict(Vqgan(architecture).state_dict())
    return as_llamagen(weights) if architecture.lookup == "cosine" else weights


def as_llamagen(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Taming's names in LlamaGen's words: `conv_blocks` and `res`, a middle that is counted, the decoder from below."""
    last = max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.down."))
    found = {}
    for name, weight in weights.items():
        name = re.sub(r"^encoder\.down\.", "encoder.conv_blocks.", name)
        name = re.sub(r"^decoder\.up\.(\d)", lambda match: f"decoder.conv_blocks.{last - int(match[1])}", name)
        name = re.sub(r"(conv_blocks\.\d)\.block", r"\1.res", name)
        for number, part in enumerate(("block_1", "attn_1", "block_2")):
            name = name.replace(f".mid.{part}.", f".mid.{number}.")
        found[name] = weight
    return found


def write_safetensors(path: Path, weights: dict[str, torch.Tensor], *, cut: int = 0) -> Path:
    """As the library writes it, with zeros that take no room on disk."""
    listed, end = {}, 0
    for name, weight in weights.items():
        start, end = end, end + 4 * weight.numel()
        listed[name] = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [start, end]}
    header = json.dumps({"__metadata__": {"format": "pt"}, **listed}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with open(path, "r+b") as file:
        file.truncate(8 + len(header) + end - cut)
    return path


@pytest.mark.parametrize("preset", VQGANS)
def test_each_preset_takes_its_own_network_and_no_other_shape(tmp_path: Path, preset: str) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", network(preset))
    layouts.require_layout(str(path), preset)
    for other in VQGANS:
        if layouts._expected(PRESETS[other].architecture) != layouts._expected(PRESETS[preset].architecture):  # type: ignore[arg-type]
            with pytest.raises(UserError, match=r"image.tokenizer=|no image tokenizer"):
                layouts.require_layout(str(path), other)


@pytest.mark.parametrize("preset", VQGANS)
def test_each_preset_refuses_its_shapes_under_a_layout_of_another_lookup(tmp_path: Path, preset: str) -> None:
    """But for UniDisc's vq16_1024, which is LlamaGen's, where our name was taming's: the file says which is meant."""
    architecture = PRESETS[preset].architecture
    assert isinstance(architecture, VqganArchitecture)
    if architecture.lookup == "signs":
        return
    with torch.device("meta"):
        weights = dict(Vqgan(architecture).state_dict())
    if architecture.lookup == "euclidean":
        weights = as_llamagen(weights)
    path = write_safetensors(tmp_path / "x.safetensors", weights)
    if preset == "vq16_1024":
        assert layouts.require_layout(str(path), preset) == "llamagen_1024"
    else:
        fits = {"llamagen_1024": "use image.tokenizer=vq16_1024"}.get(preset, f"{preset} needs")
        with pytest.raises(UserError, match=f"has the layout of .*image.tokenizer={preset} finds them by .*{fits}"):
            layouts.require_layout(str(path), preset)


@pytest.mark.parametrize("layout", ["llamagen", "taming"])
def test_a_name_of_two_systems_is_settled_in_the_plan(tmp_path: Path, layout: str) -> None:
    with torch.device("meta"):
        weights = dict(Vqgan(PRESETS["vq16_1024"].architecture).state_dict())  # type: ignore[arg-type]
    path = write_safetensors(tmp_path / "x.safetensors", as_llamagen(weights) if layout == "llamagen" else weights)
    identity = tokenizer.identify(ImageConfig(tokenizer="vq16_1024", checkpoint=str(path)))
    assert identity.preset == {"llamagen": "llamagen_1024", "taming": "vq16_1024"}[layout]
    assert (identity.codebook_size, identity.downsample) == (1024, 16)


@pytest.mark.parametrize("container", [None, "model", "state_dict"])
def test_an_archive_of_torch_is_read_as_torch_wrote_it(tmp_path: Path, container: str | None) -> None:
    weights = {"a.weight": torch.zeros(3, 2), "b": torch.nn.Parameter(torch.zeros(5, dtype=torch.float16))}
    torch.save({container: weights, "epoch": 3} if container else weights, tmp_path / "x.pt")
    assert layouts.read_shapes(str(tmp_path / "x.pt")) == {"a.weight": (3, 2), "b": (5,)}
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert layouts.read_shapes(str(tmp_path / "old.pt")) is None


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)


def test_code_in_a_file_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(2)}, "callbacks": [Hostile()]}, "x.ckpt")
    assert layouts.read_shapes("x.ckpt") == {"a": (2,)}
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.pt", b"<!DOCTYPE html>", "is no checkpoint: it begins with b'<!DOCTYPE html>'"),
        ("x.ckpt", b"version https://git-lfs.github.com/spec/v1\n", "is no checkpoint: it begins with b'version https"),
        ("x.pt", b"", "is no checkpoint"),
        ("x.pt", b"PK\x03\x04 cut", "is cut short or damaged"),
        ("x.safetensors", b"<!DOCTYPE html>", r"is not a \.safetensors file"),
        ("x.safetensors", b"", r"is not a \.safetensors file"),
        ("x.safetensors", struct.pack("<Q", 2) + b"[]", r"is not a \.safetensors file"),
        ("x.safetensors", struct.pack("<Q", 90_000) + b"[" * 90_000, r"is not a \.safetensors file"),
        (
            "x.safetensors",
            struct.pack("<Q", 46) + b'{"a": {"data_offsets": [0, 1e999], "shape":[]}}'[:46],
            r"is not a \.safetensors file",
        ),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        layouts.require_layout(str(tmp_path / name), "vq16")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_named_so(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", network("amused"), cut=1)
    with pytest.raises(UserError, match="is cut short"):
        layouts.require_layout(str(path), "amused")


def test_no_torch_is_needed() -> None:
    code = "import sys; import hpcdata.encoders.image.layouts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("pickled", "compression", "told"),
    [
        (b"\x80\x02" + b"}" * (1 << 20) + b".", zipfile.ZIP_DEFLATED, "compressed list of weights (archive/data.pkl)"),
        (b"\x80\x02" + b"}" * (9 << 20) + b".", zipfile.ZIP_STORED, "of 9437187 bytes, the limit is 8388608"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", zipfile.ZIP_STORED, "holds a NoneType, expected a dictionary"),
    ],
)
def test_a_list_of_weights_takes_no_memory_that_its_file_does_not_have(
    tmp_path: Path, pickled: bytes, compression: int, told: str
) -> None:
    """The last one names the two thousand millionth object, for which Python's unpickler in C makes 32 GiB of room."""
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
    script = (
        "import resource, sys; from hpcdata.encoders.image import layouts\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "try: layouts.read_shapes(sys.argv[1])\n"
        "except layouts.UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert told in done.stdout

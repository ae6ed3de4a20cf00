"""What a weight file says of itself: the names and shapes of its weights, read without torch and without running it.

The login node reads them when a run is planned, so that a file of another network is refused there. `.safetensors`
files begin with a list; the zip archives of `torch.save` hold one as a pickle, in which every name but those of
tensors stands for an object that takes everything and does nothing. Older files of torch are left to the tasks.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.encoders.image.checkpoints import check_lookup
from hpcdata.encoders.image.presets import BY_LAYOUT, PRESETS, VqganArchitecture
from hpcdata.encoders.image.weight_names import CODEBOOK, FIRST, select, stated_lookup, to_own_names

Shapes = dict[str, tuple[int, ...]]
_MAX_LIST_BYTES = 100 * 10**6
"""Of the list of a .safetensors file, as its authors have it."""
_MAX_PICKLE_BYTES = 8 * 2**20
"""Of the pickle that lists the weights: 200 bytes each. A byte of it may make an object of as many."""
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def require_layout(path: str, preset: str) -> str:
    """The preset that the file is of: `preset`, or another one where that name is used for two layouts.

    Raises UserError for a file that holds no weights, or those of a network that the preset cannot be.
    """
    shapes = read_shapes(path)
    if shapes is None:
        return preset
    stated = stated_lookup(shapes)
    if stated is not None:
        preset = BY_LAYOUT.get((preset, stated[0]), preset)
    architecture = PRESETS[preset].architecture
    if isinstance(architecture, VqganArchitecture):
        _check_shapes(shapes, path, preset, architecture)
        check_lookup(shapes, path, preset, architecture)
    return preset


def read_shapes(path: str) -> Shapes | None:
    """Name -> shape of each weight; None for an older file of torch. Raises UserError for what is no checkpoint."""
    with open(path, "rb") as file:
        beginning = file.read(16)
    if path.endswith(".safetensors"):
        return _read_safetensors(path, beginning)
    if beginning.startswith(b"PK"):
        return _read_archive(path)
    if beginning.startswith(_OLD_TORCH):
        return None
    raise UserError(f"{path} is no checkpoint: it begins with {beginning!r}; download it again, or name another file")


def _check_shapes(shapes: Shapes, path: str, preset: str, architecture: VqganArchitecture) -> None:
    own = to_own_names(select(shapes, path, FIRST if architecture.lookup == "signs" else CODEBOOK))
    problems = [
        f"{name} is {_shown(own.get(name))} instead of {_shown(shape)}"
        for name, shape in _expected(architecture).items()
        if _squeezed(own.get(name)) != shape
    ]
    if problems:
        raise UserError(
            f"{path} is not a checkpoint for image.tokenizer={preset}: {'; '.join(problems)}. "
            f"{preset} needs {PRESETS[preset].file}"
        )


def _expected(architecture: VqganArchitecture) -> dict[str, tuple[int, ...] | None]:
    """The weights that tell networks apart, without dimensions of 1."""
    base, multipliers = architecture.base_channels, architecture.channel_multipliers
    latent, embed, last = architecture.latent_channels, architecture.embed_dim, len(multipliers) - 1
    shapes: dict[str, tuple[int, ...] | None] = {
        "encoder.conv_in.weight": (base, 3, 3, 3),
        "encoder.conv_out.weight": (latent, base * multipliers[-1], 3, 3),
        f"encoder.down.{last}.block.0.conv1.weight": (base * multipliers[-1], base * multipliers[-2], 3, 3),
        f"encoder.down.{last + 1}.block.0.conv1.weight": None,
    }
    if architecture.lookup != "signs":
        shapes["quantize.embedding.weight"] = (architecture.codebook_size, embed)
    return shapes


def _squeezed(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if shape is None else tuple(size for size in shape if size != 1)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "not there" if shape is None else str(list(shape))


def _read_safetensors(path: str, beginning: bytes) -> Shapes:
    size = os.path.getsize(path)
    try:
        (length,) = struct.unpack("<Q", beginning[:8])
        if length > min(size - 8, _MAX_LIST_BYTES):
            raise ValueError(f"its list of weights would have {length} bytes")
        with open(path, "rb") as file:
            file.seek(8)
            listed = files.parse_json(file.read(length), "its list of weights")
        entries = {name: entry for name, entry in listed.items() if name != "__metadata__"}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
    ) as error:
        raise UserError(f"{path} is not a .safetensors file ({error}): download it again") from None
    if end > size:
        raise UserError(f"{path} is cut short: it has {size} of {end} bytes, download it again")
    return shapes


def _read_archive(path: str) -> Shapes | None:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [item for item in archive.infolist() if item.filename.endswith("data.pkl")]
            if not found:
                raise UserError(f"{path} is an archive, but no checkpoint of torch: name another file")
            for info in found:
                _require_small(info, path)
            with archive.open(found[0]) as file:
                content = _Reader(file).load()
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is cut short or damaged ({error}): download it again") from None
    except (OSError, UserError):
        raise
    except Exception as error:  # whatever a damaged pickle makes of our stand-ins
        raise UserError(f"{path} has a list of weights that cannot be read ({type(error).__name__})") from None
    for container in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
            break
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights")
    return {str(name): value.shape for name, value in content.items() if isinstance(value, _Tensor)}


class _Tensor:
    """Where a tensor would be."""

    def __init__(self, storage: object, offset: object, shape: Any, *_: object) -> None:
        self.shape = tuple(int(size) for size in shape)


class _Ignored:
    """Where any other object would be."""

    def __new__(cls, *_: object, **__: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Ignored:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


def _require_small(info: zipfile.ZipInfo, path: str) -> None:
    """Raises UserError for a list of weights that is huge, or compressed, which torch does not do."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{path} has a compressed list of weights ({info.filename}): torch writes it as it is")
    if info.file_size > _MAX_PICKLE_BYTES:
        size = f"{info.file_size} bytes, the limit is {_MAX_PICKLE_BYTES}"
        raise UserError(f"{path} has a list of weights ({info.filename}) of {size}")


class _Reader(pickle._Unpickler):
    """Never imports what a pickle names. The one in Python: that in C makes room for any number that is named."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return _Tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _first
        if (module, name) == ("collections", "OrderedDict") or name == "AttributeDict":
            return OrderedDict
        return _Ignored

    def persistent_load(self, pid: object) -> None:
        return None


def _first(value: object, *_: object) -> object:
    return value

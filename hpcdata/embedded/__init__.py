"""The data that comes with hpcdata: pictures to try it on, a text tokenizer and an image tokenizer. See README.md.

Works from a wheel and from an editable installation; the files are read where they are installed.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

QUICKSTART = "quickstart.tar"
"""96 captioned pictures, a WebDataset tar of PNG and text members."""
TOKENIZER = "tokenizer.json"
"""Byte-level BPE of 4096 ids; `<s>`, `</s>` and `<pad>` are its special tokens."""
IMAGE_TOKENIZER = "image_tokenizer.safetensors"
"""The weights of `hpcdata.encoders.image.exact_vq`, fp16: 4096 codes of 8 x 8 pixels, code 0 is white."""


def path(name: str) -> Path:
    """The file `name` of this folder. Raises FileNotFoundError, which names what there is."""
    folder = resources.files(__package__)
    found = Path(str(folder / name))
    if not found.is_file():
        known = ", ".join(sorted(item.name for item in folder.iterdir() if not item.name.startswith("__")))
        raise FileNotFoundError(f"hpcdata comes without {name}: it has {known}")
    return found

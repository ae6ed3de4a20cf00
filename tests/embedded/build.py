"""Makes the files of hpcdata/embedded from Debian packages, and measures the image tokenizer on other pictures.

    apt-get install openclipart-png openclipart-svg wordnet-base tuxpaint-stamps-default
    python -m tests.embedded.build OUT_DIR [--only quickstart tokenizer drawings measure]

In the root of the checkout. Equal packages, Pillow and tokenizers give equal pictures, tokenizer and list of drawings;
`jobs/train_image_tokenizer.py` trains the image tokenizer, as hpcdata/embedded/README.md says. The stamps (GPL-2) are
only measured on, nothing of them is in what is written.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hpcdata import embedded
from hpcdata.encoders.image import exact_vq
from hpcdata.media import pixels
from hpcdata.samples import BadSample
from tests import corpora

CHOSEN = Path(__file__).with_name("quickstart.tsv")
"""`openclipart key <tab> caption`, chosen and captioned by looking."""
SIDE = 176
BORDER = 4
"""Side and white border of a quickstart picture, in pixels."""
NUM_COLORS = 128

WORDNET = Path("/usr/share/wordnet")
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>"]
VOCAB_SIZE = 4096

MAX_PIXELS = 60_000_000
MAX_DRAWING_PIXELS = 20_000_000
MEASURED_SIDE = 256
MAX_PER_TITLE = 60
"""Openclipart has 1,375 stars of one title: no collection may rule the codebook."""
DRAWINGS = "drawings.txt"
OTHERS = {
    "screenshots (gimp-help-en)": "packages/gimp-help-en/**/*.png",
    "photographs (mate-backgrounds)": "packages/mate-backgrounds/**/nature/*.jpg",
    "wallpapers (plasma-workspace-wallpapers)": "packages/plasma-workspace-wallpapers/**/images/*.jpg",
}
"""Below OUT_DIR: packages unpacked by `dpkg-deb -x`, measured on where they are there."""


def write_quickstart(out: Path) -> None:
    """96 square pictures on white of 128 colors; their captions are their keys, so that kinds come mixed."""
    by_key = {pair.key: pair for pair in corpora.pairs("openclipart")}
    rows = [line.split("\t") for line in CHOSEN.read_text("utf-8").splitlines()]
    members = {_slug(caption): (by_key[key].image, caption) for key, caption in rows}
    assert len(members) == len(rows), "two captions are equal"
    with tarfile.open(out / embedded.QUICKSTART, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (image, caption) in sorted(members.items()):
            corpora.add_member(tar, f"{name}.png", _small_png(image))
            corpora.add_member(tar, f"{name}.txt", caption.encode())


def write_tokenizer(out: Path) -> None:
    """Byte-level BPE without normalization, so that decoding gives back the text byte by byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_texts(), trainer)
    tokenizer.save(str(out / embedded.TOKENIZER), pretty=False)


def training_texts() -> list[str]:
    """Openclipart's different captions without addresses, and the definitions of WordNet's nouns."""
    captions = {re.sub(r"\S*[@/]\S*", "", pair.caption) for pair in corpora.pairs("openclipart")}
    lines = (WORDNET / "data.noun").read_text("utf-8").splitlines()
    definitions = [line.split(" | ", 1)[1].strip() for line in lines if " | " in line]
    return sorted(captions) + definitions


def write_drawings(out: Path) -> None:
    """`drawings.txt`, the pictures of openclipart that `jobs/train_image_tokenizer.py` is given: not those held out."""
    seen: Counter[str] = Counter()
    chosen = []
    for pair in corpora.pairs("openclipart"):
        seen[pair.title] += 1
        if (
            not _is_held_out(pair)
            and seen[pair.title] <= MAX_PER_TITLE
            and corpora.num_pixels(pair.image) <= MAX_DRAWING_PIXELS
        ):
            chosen.append(str(pair.image))
    (out / DRAWINGS).write_text("\n".join(chosen) + "\n", "utf-8")


def measure(out: Path) -> None:
    """Prints what comes back of pictures that the image tokenizer was not trained on."""
    path = out / embedded.IMAGE_TOKENIZER
    tokenizer = exact_vq.load(str(path if path.exists() else embedded.path(embedded.IMAGE_TOKENIZER)), device="cpu")
    every_code: set[int] = set()
    for name, files in _measured_files(out).items():
        errors, codes = [], set()
        for file in files:
            if (picture := _load(Path(file), MEASURED_SIDE)) is not None:
                image = torch.from_numpy(picture).permute(2, 0, 1)[None]
                grid = tokenizer.encode(image)
                codes |= set(grid.unique().tolist())
                errors.append((tokenizer.decode(grid).double() - image.double()).square().mean().item())
        if errors:
            each = 10 * np.log10(255**2 / np.maximum(errors, 0.5))
            pooled = 10 * np.log10(255**2 / np.mean(errors))
            figures = f"all pixels {pooled:.1f} dB, median picture {np.median(each):.1f} dB, {len(codes)} codes used"
            print(f"{name}: {len(errors)} pictures, PSNR of {figures}")
        every_code |= codes
    print(f"{len(every_code) / exact_vq.CODEBOOK_SIZE:.1%} of the codes are used")


def _measured_files(out: Path) -> dict[str, list[str]]:
    """Drawings held out by name, and kinds of pictures that are not trained on at all."""
    files = {
        "openclipart, held out": [str(pair.image) for pair in corpora.pairs("openclipart") if _is_held_out(pair)],
        "tuxpaint stamps": [str(pair.image) for pair in corpora.pairs("tuxpaint")],
    }
    return files | {name: sorted(glob.glob(str(out / pattern), recursive=True)) for name, pattern in OTHERS.items()}


def _slug(caption: str) -> str:
    words = re.findall(r"[a-z0-9]+", caption.lower())
    return "-".join(words[1:] if words[0] in ("a", "an", "the") else words)


def _small_png(path: Path) -> bytes:
    """The whole drawing in the middle of a white square, so that no center crop cuts it."""
    image = Image.open(path).convert("RGBA")
    image = image.crop(image.getbbox(alpha_only=True))
    scale = (SIDE - 2 * BORDER) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(image, [(SIDE - side) // 2 for side in image.size], mask=image)
    buffer = io.BytesIO()
    square.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _is_held_out(pair: corpora.Pair) -> bool:
    """One picture in twenty, by its name."""
    return zlib.crc32(pair.key.encode()) % 20 == 0


def _load(path: Path, side: int) -> np.ndarray | None:
    """As the pipeline sees it: [side, side, 3] uint8, composited on white."""
    try:
        return pixels.load_square(path.read_bytes(), resolution=side, max_pixels=MAX_PIXELS)
    except BadSample:
        return None


STEPS = {
    "quickstart": write_quickstart,
    "tokenizer": write_tokenizer,
    "drawings": write_drawings,
    "measure": measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args(arguments)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        STEPS[name](options.out_dir)
    for name in (embedded.QUICKSTART, embedded.TOKENIZER):
        if (path := options.out_dir / name).exists():
            print(f"{name}: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()

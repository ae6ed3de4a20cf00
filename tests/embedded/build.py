"""Makes the files of hpcdata/embedded from Debian packages, and measures the codebook on pictures it has not seen.

    apt-get install openclipart-png openclipart-svg wordnet-base tuxpaint-stamps-default
    python -m tests.embedded.build OUT_DIR [--only quickstart tokenizer codebook measure]

In the root of the checkout, five to eight minutes on two cores. Equal packages, Pillow and tokenizers give equal bytes:
the codebook is trained in integers. The stamps (GPL-2) are only measured on, nothing of them is in what is written.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hpcdata import embedded
from hpcdata.encoders import pixels
from hpcdata.encoders.patch_vq import CODEBOOK_SIZE, DOWNSAMPLE, PatchVQ
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

MAX_PIXELS = 20_000_000
TRAINING_SIDES = (128, 192, 256, 256, 320, 384)
MEASURED_SIDE = 256
MAX_PER_TITLE = 60
"""Openclipart has 1,375 stars of one title: no collection may rule the codebook."""
PATCHES_PER_VIEW = 96
NUM_VIEWS = 2
NUM_ROUNDS = 16
MIN_MEMBERS = 3
SEARCHED = 65536
"""Patches assigned at a time."""


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


def write_codebook(out: Path) -> None:
    """k-means over patches (Linde-Buzo-Gray); entry 0 stays white, the others are sorted from light to dark."""
    from safetensors.torch import save

    codebook = _train(torch.from_numpy(np.concatenate(list(_training_patches()))))
    order = (-codebook[1:].sum(1)).argsort(stable=True) + 1
    codebook = torch.cat([codebook[:1], codebook[order]])
    data = save({"patches": codebook.reshape(-1, DOWNSAMPLE, DOWNSAMPLE, 3)})
    (out / embedded.PATCH_CODEBOOK).write_bytes(data)


def measure(out: Path) -> None:
    """Prints the PSNR of what comes back, for pictures that the codebook was not trained on."""
    quantizer = PatchVQ.load(str(out / embedded.PATCH_CODEBOOK))
    held_out = [pair for pair in corpora.pairs("openclipart") if _is_held_out(pair)]
    for name, pairs in (("openclipart, held out", held_out), ("tuxpaint stamps", corpora.pairs("tuxpaint"))):
        errors = []
        for pair in pairs:
            if (picture := _load(pair.image, MEASURED_SIDE)) is not None:
                image = torch.from_numpy(picture).permute(2, 0, 1)[None]
                back = quantizer.decode(quantizer.encode(image))
                errors.append((back.double() - image.double()).square().mean().item())
        each = 10 * np.log10(255**2 / np.maximum(errors, 0.5))
        pooled = 10 * np.log10(255**2 / np.mean(errors))
        figures = f"all pixels {pooled:.1f} dB, median picture {np.median(each):.1f} dB"
        print(f"{name}: {len(errors)} pictures, PSNR of {figures}")


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
    if corpora.num_pixels(path) > MAX_PIXELS:
        return None
    return pixels.load_square(path.read_bytes(), resolution=side, max_pixels=MAX_PIXELS)


def _training_patches() -> Iterator[np.ndarray]:
    """[n, 192] uint8 patches that are not white, from views of random scale, mirroring, turn and grid position."""
    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for pair in corpora.pairs("openclipart"):
        seen[pair.title] += 1
        if _is_held_out(pair) or seen[pair.title] > MAX_PER_TITLE:
            continue
        picture = _load(pair.image, int(rng.choice(TRAINING_SIDES)))
        for _ in range(NUM_VIEWS if picture is not None else 0):
            patches = _patches(_view(picture, rng))
            patches = patches[patches.min(axis=1) < 250]
            yield patches[rng.permutation(len(patches))[:PATCHES_PER_VIEW]]


def _view(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top, left = rng.integers(0, DOWNSAMPLE, 2)
    mirrored, flipped, turned = rng.random(3) < 0.5
    side = picture.shape[0] - DOWNSAMPLE
    view = picture[top : top + side, left : left + side]
    view = view[:, ::-1] if mirrored else view
    view = view[::-1] if flipped else view
    return view.transpose(1, 0, 2) if turned else view


def _patches(picture: np.ndarray) -> np.ndarray:
    """[side, side, 3] -> [num_cells, 192], in the codebook's order: row, column, color."""
    cells = picture.shape[0] // DOWNSAMPLE
    grid = picture.reshape(cells, DOWNSAMPLE, cells, DOWNSAMPLE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, 3 * DOWNSAMPLE**2)


def _train(patches: torch.Tensor) -> torch.Tensor:
    """[4096, 192] uint8. Means are rounded in every round, so that the search is the tokenizer's own exact one."""
    rng = np.random.default_rng(1)
    codebook = patches[rng.permutation(len(patches))[:CODEBOOK_SIZE]].clone()
    for round_index in range(NUM_ROUNDS):
        codebook[0] = 255
        codes, errors = _assign(patches, codebook)
        print(f"round {round_index}: {10 * np.log10(255**2 * 192 / errors.mean()):.2f} dB on {len(patches)} patches")
        num_members = torch.bincount(codes, minlength=CODEBOOK_SIZE)
        sums = torch.zeros(codebook.shape, dtype=torch.int64).index_add_(0, codes, patches.long())
        codebook = _rounded_means(sums, num_members[:, None], codebook)
        unused = torch.nonzero(num_members < MIN_MEMBERS).squeeze(1)
        if round_index < NUM_ROUNDS - 2:
            drawn = rng.choice(len(patches), len(unused), p=errors / errors.sum())
            codebook[unused] = patches[drawn]
    codebook[0] = 255
    return codebook


def _rounded_means(sums: torch.Tensor, num_members: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    means = (2 * sums + num_members) // (2 * num_members).clamp(min=1)
    return torch.where(num_members > 0, means.to(torch.uint8), previous)


def _assign(patches: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Nearest code of every patch, and the squared distance to it."""
    quantizer = PatchVQ(codebook.reshape(-1, DOWNSAMPLE, DOWNSAMPLE, 3))
    codes, errors = [], []
    for rows in patches.split(SEARCHED):
        nearest = quantizer.nearest(rows).long()
        codes.append(nearest)
        errors.append((rows.int() - codebook[nearest].int()).square().sum(1))
    return torch.cat(codes), torch.cat(errors).double().numpy()


STEPS = {
    "quickstart": write_quickstart,
    "tokenizer": write_tokenizer,
    "codebook": write_codebook,
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
    for name in (embedded.QUICKSTART, embedded.TOKENIZER, embedded.PATCH_CODEBOOK):
        if (path := options.out_dir / name).exists():
            print(f"{name}: {path.stat().st_size} bytes, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()

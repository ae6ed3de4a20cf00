"""What hostile inputs of at most 10 MB take: one command, one table.

    python tests/benchmarks/hostile.py [NAME ...]     runs on the inputs of tests/hostile/inputs.py, or on some of them
    python tests/benchmarks/hostile.py --stage copy   the same of another stage: copy (pictures are decoded), measure
    python tests/benchmarks/hostile.py --pictures     what decoding takes for each pixel, beside what is predicted

A run is a launch with the embedded tokenizers, from its planning to its last commit, in two decoding threads. Seconds
are of CPU time, memory is the most that the process had. Pictures have 88 million pixels, 67 million as AVIF.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image

from tests.hostile.inputs import INPUTS
from tests.hostile.test_inputs import launch

KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG, progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG, progressive, CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "PNG with alpha": ("RGBA", "PNG", {}),
    "PNG, gray with alpha": ("LA", "PNG", {}),
    "PNG, a transparent color": ("RGB", "PNG", {"transparency": (0, 0, 0)}),
    "GIF, a transparent color": ("P", "GIF", {"transparency": 0}),
    "TIFF of floats": ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, Lab": ("LAB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "WebP with alpha": ("RGBA", "WEBP", {"lossless": True}),
    "AVIF with alpha": ("RGBA", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    "JPEG 2000": ("RGB", "JPEG2000", {}),
    "JPEG 2000 with alpha": ("RGBA", "JPEG2000", {}),
    "JPEG 2000 with alpha, tiles": ("RGBA", "JPEG2000", {"tile_size": (1024, 1024)}),
}
MEASURE = """
import io, sys
from PIL import Image
from hpcdata.media import pixels, turns

def kilobytes(what):
    return int(open("/proc/self/status").read().partition(what)[2].split()[0])

with open(sys.argv[1], "rb") as file:
    data = file.read()
small = io.BytesIO()
Image.new("RGB", (64, 64)).save(small, "PNG")
pixels.load_square(small.getvalue(), resolution=32, max_pixels=1 << 40)
with Image.open(io.BytesIO(data)) as image:
    number, predicted = image.width * image.height, turns.decoding_bytes(image, data)
before = kilobytes("VmRSS:")
pixels.load_square(data, resolution=32, max_pixels=1 << 40)
print(1024 * (kilobytes("VmHWM:") - before) / number, predicted / number)
"""


def runs(names: list[str], stage: str) -> None:
    print("| input | CPU s | MiB | what it says at the end |\n|---|---:|---:|---|")
    for name in names or INPUTS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch) / "in"
            folder.mkdir()
            said, seconds, memory = launch(name, INPUTS[name](folder), Path(scratch) / "run", stage=stage)
            lines = [line.strip() for line in said.splitlines()]
            told = [line for line in lines if line.startswith(("samples ", "hpcdata: "))] or lines[-1:]
            print(f"| {name} | {seconds:.1f} | {memory >> 20} | {told[-1].replace(scratch, '')[:110]} |", flush=True)
            subprocess.run(["rm", "-rf", str(folder)], check=True)


def pictures() -> None:
    print("| picture | bytes a pixel | predicted |\n|---|---:|---:|")
    Image.MAX_IMAGE_PIXELS = None
    for name, (mode, format_name, options) in KINDS.items():
        side = 8192 if format_name == "AVIF" else 9400
        buffer = io.BytesIO()
        image = Image.new(mode, (side, side))
        if mode in ("RGB", "RGBA"):
            image.paste(Image.effect_noise((100, 100), 64).convert(mode))  # or it has too few bytes for its pixels
        image.save(buffer, format_name, **options)
        with tempfile.NamedTemporaryFile() as file:
            file.write(buffer.getvalue())
            file.flush()
            command = [sys.executable, "-c", MEASURE, file.name]
            found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        print(f"| {name} | {float(found[0]):.1f} | {float(found[1]):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *INPUTS], help="inputs; all by default")
    parser.add_argument("--pictures", action="store_true", help="what decoding takes, by format")
    parser.add_argument("--stage", default="tokenize", choices=("tokenize", "copy", "measure"))
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    pictures() if options.pictures else runs(options.names, options.stage)


if __name__ == "__main__":
    main()

"""Image codes as a whole job, picture files in, committed shard out: one command, one table.

    python tests/benchmarks/encode.py [--device cpu|cuda] [--resolution 256 ...] [--pictures 64] [--rounds 3]
                                      [--precision fp32 bf16] [--batch-size 16] [--threads 2] [--tokenizer vq16_t2i]
                                      [--checkpoint FILE] [--files GLOB ...]

Pictures: openclipart (Debian package openclipart-png) of at most a megapixel or `--files`, else those that come with
hpcdata; every second one is made a JPEG. Without `--checkpoint` the network has its full size and random weights.
Each figure is of a process of its own, in turns; the table has medians, and ratios within a round.

    script    what people write: a loop over files, batch 1, fp32, the network as it comes, the pixels of hpcdata; over
              a quarter of the pictures
    bare      the tokenizer of hpcdata alone, on batches of pixels that lie in memory
    hpcdata   an array task: the seconds from the claim of a shard to its commit, by its ledger

Starting and loading weights are left out of all three, and so is a first picture; and the comparison of bf16 with fp32,
which is a picture in 1024 of a real run and would be one in 64 here.
"""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from hpcdata import embedded
from tests import corpora

MAX_PIXELS = 2**20
MIN_SIDE = 256


def main() -> int:
    options = _options()
    if options.one:
        print("ANSWER", json.dumps(_RUNS[options.one](options)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = Path(scratch)
        num_bytes = write_pictures(options)
        if not options.checkpoint:
            options.checkpoint = str(options.scratch / "weights.safetensors")
            write_random_weights(options.tokenizer, Path(options.checkpoint))
        print(_machine(options, num_bytes))
        for resolution in options.resolution:
            print(_table(options, resolution))
    return 0


def write_pictures(options: argparse.Namespace) -> int:
    """`pictures.tar`, a WebDataset of PNG and JPEG members; returns their bytes."""
    pictures = _pictures(options)
    with tarfile.open(options.scratch / "pictures.tar", "w") as tar:
        for number, data in enumerate(pictures):
            suffix = "png"
            if number % 2:
                buffer = io.BytesIO()
                with Image.open(io.BytesIO(data)) as image:
                    rgba = image.convert("RGBA")
                    white = Image.new("RGB", rgba.size, "white")
                    white.paste(rgba, mask=rgba)
                white.save(buffer, "JPEG", quality=90)
                data, suffix = buffer.getvalue(), "jpg"
            corpora.add_member(tar, f"{number:06d}.{suffix}", data)
            corpora.add_member(tar, f"{number:06d}.txt", b"a picture")
    return sum(map(len, pictures))


def _pictures(options: argparse.Namespace) -> list[bytes]:
    if options.files:
        paths = [Path(name) for pattern in options.files for name in sorted(glob.glob(pattern, recursive=True))]
    elif corpora.available("openclipart"):
        paths = [pair.image for pair in corpora.pairs("openclipart") if _is_usual(pair.image)]
    else:
        with tarfile.open(embedded.path(embedded.QUICKSTART)) as tar:
            found = [tar.extractfile(member) for member in tar if member.name.endswith(".png")]
            data = [file.read() for file in found if file]
        return (data * (options.pictures // len(data) + 1))[: options.pictures]
    step = max(1, len(paths) // options.pictures)
    return [path.read_bytes() for path in paths[::step][: options.pictures]]


def _is_usual(path: Path) -> bool:
    if corpora.num_pixels(path) > MAX_PIXELS:
        return False
    with Image.open(path) as image:
        return min(image.size) >= MIN_SIDE


def write_random_weights(preset: str, path: Path) -> None:
    """A file of the preset's full size. Speed does not depend on the values."""
    import torch
    from safetensors.torch import save_file

    from hpcdata.encoders.image import vqgan
    from hpcdata.encoders.image.presets import VqganArchitecture, architecture_of

    architecture = architecture_of(preset)
    if not isinstance(architecture, VqganArchitecture):
        return
    torch.manual_seed(0)
    network = vqgan.Vqgan(architecture)
    for name, parameter in network.named_parameters():
        if name.startswith("quantize."):
            torch.nn.init.normal_(parameter)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


def _table(options: argparse.Namespace, resolution: int) -> str:
    rows = [("script", "fp32")] + [(name, some) for some in options.precision for name in ("bare", "hpcdata")]
    rates: dict[tuple[str, str], list[float]] = {row: [] for row in rows}
    facts: dict[tuple[str, str], dict[str, float]] = {}
    for _ in range(options.rounds):
        for row in rows:
            facts[row] = _run(options, resolution, *row)
            rates[row].append(facts[row]["rate"])
    lines = [f"\n{resolution} x {resolution} pixels", ""]
    lines += ["| | precision | pictures/s | of bare | of the script | codes as the script's | peak MiB |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        name, precision = row
        bare = _ratio(rates[row], rates[("bare", precision)], "%") if name == "hpcdata" else ""
        script = _ratio(rates[row], rates[("script", "fp32")], "x") if name != "script" else ""
        same = f"{100 * _same_codes(options.scratch, row, rows[0]):.2f} %" if name != "script" else ""
        rate, memory = statistics.median(rates[row]), facts[row]["max_rss_mib"]
        lines.append(f"| {name} | {precision} | {rate:.2f} | {bare} | {script} | {same} | {memory:.0f} |")
    decode = statistics.median(facts[("bare", some)]["decode_ms"] for some in options.precision)
    return "\n".join([*lines, "", f"reading and decoding a picture: {decode:.1f} ms of one core"])


def _ratio(rates: list[float], others: list[float], unit: str) -> str:
    ratio = statistics.median(rate / other for rate, other in zip(rates, others, strict=True))
    return f"{100 * ratio:.1f} %" if unit == "%" else f"{ratio:.2f}x"


def _same_codes(scratch: Path, row: tuple[str, str], other: tuple[str, str]) -> float:
    codes = [np.load(scratch / f"{name}-{precision}.npy") for name, precision in (row, other)]
    num = min(map(len, codes))
    return float((codes[0][:num] == codes[1][:num]).mean())


def _run(options: argparse.Namespace, resolution: int, name: str, precision: str) -> dict[str, float]:
    settings = {
        "one": name,
        "precision": precision,
        "resolution": resolution,
        "scratch": options.scratch,
        "device": options.device,
        "tokenizer": options.tokenizer,
        "checkpoint": options.checkpoint,
        "threads": options.threads,
        "batch-size": options.batch_size,
        "pictures": options.pictures,
    }
    line = [sys.executable, __file__, *(f"--{key}={value}" for key, value in settings.items())]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(line, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    answers = [text for text in done.stdout.splitlines() if text.startswith("ANSWER ")]
    if done.returncode or not answers:
        raise RuntimeError(f"{name} failed:\n{done.stderr}")
    answer: dict[str, float] = json.loads(answers[-1].removeprefix("ANSWER "))
    return answer


def _script(options: argparse.Namespace) -> dict[str, float]:
    """Batch 1, fp32, the network as it comes: no layout, no threads ahead, no settings."""
    import torch

    from hpcdata.encoders.image import vqgan
    from hpcdata.encoders.image.checkpoints import load_weights
    from hpcdata.encoders.image.presets import architecture_of
    from hpcdata.media.pixels import load_square

    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.device("meta"):
        network = vqgan.Vqgan(architecture_of(options.tokenizer))  # type: ignore[arg-type]
    load_weights(network, options.checkpoint, options.tokenizer)
    network.eval().to(options.device)

    @torch.no_grad()
    def codes_of(data: bytes) -> np.ndarray:
        square = load_square(data, resolution=options.resolution[0], max_pixels=2**30)
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None].to(options.device)
        codes = network.quantize(network.encode(pixels.float().div_(127.5).sub_(1.0)))
        result: np.ndarray = codes.cpu().numpy()
        return result

    files = _members(options.scratch)[: max(1, options.pictures // 4)]
    codes_of(files[0])
    started = time.perf_counter()
    codes = [codes_of(data) for data in files]
    return _answer(options, len(files) / (time.perf_counter() - started), np.concatenate(codes))


def _bare(options: argparse.Namespace) -> dict[str, float]:
    import torch

    from hpcdata.config.schema import ImageConfig
    from hpcdata.encoders.image import tokenizer as image
    from hpcdata.media.pixels import load_square

    config = ImageConfig(
        tokenizer=options.tokenizer,
        checkpoint=options.checkpoint,
        precision=options.precision[0],
        device=options.device,
    )
    tokenizer = image.build(
        image.identify(config), options.checkpoint, options.device, options.threads, options.batch_size
    )
    files = _members(options.scratch)
    started = time.perf_counter()
    squares = [load_square(data, resolution=options.resolution[0], max_pixels=2**30) for data in files]
    decode_ms = 1000 * (time.perf_counter() - started) / len(files)
    batches = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).split(options.batch_size)
    tokenizer.encode(batches[0][:1])
    started = time.perf_counter()
    codes = [tokenizer.encode(batch) for batch in batches]
    rate = len(files) / (time.perf_counter() - started)
    return {**_answer(options, rate, torch.cat(codes).numpy()), "decode_ms": decode_ms}


def _hpcdata(options: argparse.Namespace) -> dict[str, float]:
    """The second run of a process: one of a single picture warms up."""
    import unittest.mock

    from hpcdata import TokenDataset
    from hpcdata.encoders.image.codes import PictureEncoder
    from hpcdata.history.ledger import read_ledgers
    from hpcdata.runs.paths import RunPaths

    no_comparison = unittest.mock.patch.object(PictureEncoder, "compare", return_value=(0, 0))
    with no_comparison, tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        _array_task(options, Path(folder) / "warm", num_samples=1)
        _array_task(options, Path(folder) / "run", num_samples=options.pictures)
        events = [event for _, some in read_ledgers(RunPaths(f"{folder}/run").ledger) for event in some]
        (commit,) = [event for event in events if event["event"] == "commit"]
        dataset = TokenDataset(f"{folder}/run", allow_tmp=True)
        spans = [span for row in range(len(dataset)) for span in dataset[row].spans if span.height]
        codes = np.stack([np.asarray(span.ids).astype(np.int64).reshape(span.height, -1) for span in spans])
    return _answer(options, commit["samples"] / commit["seconds"], codes)


def _array_task(options: argparse.Namespace, folder: Path, *, num_samples: int) -> None:
    from hpcdata.base.signals import StopFlag
    from hpcdata.config.compose import compose
    from hpcdata.runs.planning import prepare
    from hpcdata.work.task import run_task

    overrides = {
        "data.raw_data_dir": options.scratch / "pictures.tar",
        "data.token_output_dir": folder,
        "text.tokenizer": "embedded",
        "image.tokenizer": options.tokenizer,
        "image.device": options.device,
        "image.checkpoint": options.checkpoint,
        "image.precision": options.precision[0],
        "image.cpu_threads": options.threads,
        "loader.batch_size": options.batch_size,
        "data.resolution": options.resolution[0],
        "data.n_train_samples": num_samples,
    }
    prepare(compose([f"{name}={value}" for name, value in overrides.items()]))
    with StopFlag() as stop:
        run_task(folder, stop)


_RUNS = {"script": _script, "bare": _bare, "hpcdata": _hpcdata}


def _members(scratch: Path) -> list[bytes]:
    with tarfile.open(scratch / "pictures.tar") as tar:
        found = [tar.extractfile(member) for member in tar if not member.name.endswith(".txt")]
        return [file.read() for file in found if file]


def _answer(options: argparse.Namespace, rate: float, codes: np.ndarray) -> dict[str, float]:
    import resource

    np.save(options.scratch / f"{options.one}-{options.precision[0]}.npy", codes)
    return {"rate": rate, "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _machine(options: argparse.Namespace, num_bytes: int) -> str:
    import torch

    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, {options.threads} threads, torch {torch.__version__}, {options.tokenizer}, "
        f"{options.pictures} pictures of {num_bytes / options.pictures / 1024:.0f} KiB, batches of "
        f"{options.batch_size}, medians of {options.rounds}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", type=int, nargs="+", default=[256])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokenizer", default="vq16_t2i")
    parser.add_argument("--checkpoint")
    parser.add_argument("--files", nargs="+")
    parser.add_argument("--one", choices=("script", "bare", "hpcdata"), help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

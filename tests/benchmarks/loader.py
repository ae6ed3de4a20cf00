"""Loader speed against other loaders: one command, the table of README.md beside this file.

    python tests/benchmarks/loader.py [--samples 100000] [--rounds 5] [--seconds 1] [--scratch DIR] [--peers a,b]
                                      [--threads 1]

1 to 2 KB samples (512 to 1,024 uint16 ids), shuffled, batches of 256, padded int64 out. Every loader runs in a process
of its own, the peers in their own environments (SCRATCH/venv-*, made from requirements-*.txt beside this file when
they are not there). Before anything is timed each one runs an epoch whose ids are summed up: loaders that do not
deliver the same ids are reported and not timed. Then all take turns, round by round; the figure is the median. Each
peer runs as it is fastest: with workers of one thread each, or without, with one thread or with all that torch takes.
With --threads, each has no workers, and that many threads: one thread against one thread.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MOSAICML, OTHERS, MEGATRON = (f"requirements-{name}.txt" for name in ("mosaicml", "peers", "megatron"))
PEERS = {
    "hpcdata": ("", (0, 1, 2), "input_ids"),
    "hpcdata_baked": ("", (0, 1, 2), "rows of the layout, stored by `combine --bake`"),
    "hpcdata_baked_uint16": ("", (0, 1, 2), "the same, uint16 out"),
    "hpcdata_baked_all_keys": ("", (0, 2), "the same, with masks, labels, positions, modality"),
    "hpcdata_1000_parts": ("", (0,), "the same samples in 1,000 parts"),
    "hpcdata_uint16": ("", (0, 1, 2), "uint16 out, to be widened on the device"),
    "hpcdata_all_keys": ("", (0, 2), "and masks, labels, positions, modality"),
    "hpcdata_mixture": ("", (0, 2), "two sources"),
    "hpcdata_packed": ("", (0, 2), "rows of 4,096, cu_seqlens"),
    "hpcdata_packed_all_keys": ("", (0, 2), "and masks, labels, positions, segments"),
    "hpcdata_numpy": ("", (0,), "without the compiled loops"),
    "hpcdata_numpy_packed": ("", (0,), "without the compiled loops, rows of 4,096, cu_seqlens"),
    "c_gather": ("", (0,), "the limit: one loop in C, rows known before"),
    "c_gather_uint16": ("", (0,), "the limit of uint16 out"),
    "c_gather_ahead": ("", (0,), "the same, asking for the row behind the next"),
    "c_gather_ahead_uint16": ("", (0,), "the same, uint16 out"),
    "fixed_rows": ("", (0,), "padded int16 rows in a memory map: torch.index_select, widened; no state"),
    "statefuldataloader": (OTHERS, (0, 1, 2), "map-style over a flat memmap"),
    "statefuldataloader_batched": (OTHERS, (0, 1, 2), "with `__getitems__` written for this benchmark"),
    "tensordict": (OTHERS, (0,), "its own batched rows, padded int32 on disk; with workers it hangs"),
    "grain": (OTHERS, (0, 2, 4), "MapDataset over a flat memmap, threads"),
    "megatron": (MEGATRON, (0, 1, 2), "IndexedDataset, a document a row"),
    "energon": (MEGATRON, (0, 1, 2), "tars of its own kind, shuffle buffer of 1,000"),
    "litdata": (OTHERS, (0, 1, 2), "StreamingDataset, local"),
    "huggingface": (OTHERS, (0, 1, 2), "Arrow, DataLoader"),
    "unidisc": (OTHERS, (0, 1, 2), "rows of a TensorDict, one at a time"),
    "webdataset": (OTHERS, (0, 1, 2), "tars, shuffle buffer of 1,000"),
    "mosaicml": (MOSAICML, (0, 1, 2), "MDS, local"),
}
"""Name -> requirements (none: this environment), numbers of workers (hpcdata: threads ahead) to try, what it does."""
PACKAGES = {
    "statefuldataloader": "torchdata",
    "statefuldataloader_batched": "torchdata",
    "tensordict": "tensordict",
    "unidisc": "tensordict",
    "megatron": "megatron-core",
    "energon": "megatron-energon",
    "huggingface": "datasets",
    "mosaicml": "mosaicml-streaming",
}


@dataclass(kw_only=True)
class Runner:
    """A loader process: see loader_peers.py."""

    name: str
    workers: int
    threads: int
    python: str
    data: Path
    scratch: Path
    process: subprocess.Popen[str] | None = None
    rates: list[float] = field(default_factory=list)
    rss_mib: float = 0.0

    def start(self) -> None:
        arguments = [self.python, HERE / "loader_peers.py", self.name, self.data, self.scratch / self.name]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "ignore"}
        environment["OMP_NUM_THREADS"] = str(self.threads)
        if "numpy" in self.name:
            environment["HPCDATA_KERNELS"] = "0"
        log = open(self.scratch / f"{self.name}.log", "a")  # noqa: SIM115 - the process keeps it
        self.process = subprocess.Popen(
            [*map(str, arguments), str(self.workers), str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )

    def ask(self, command: str) -> dict[str, float]:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise RuntimeError(f"{self.name} ended, see {self.scratch / f'{self.name}.log'}")

    def time(self, seconds: float) -> float:
        answer = self.ask(f"time {seconds}")
        self.rss_mib = answer["max_rss_mib"]
        return answer["samples_per_s"]

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--scratch", type=Path, help="kept, with environments and converted data, for another run")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--threads", type=int, help="of each, without workers")
    options = parser.parse_args()
    scratch = options.scratch or Path(tempfile.mkdtemp(prefix="hpcdata-loader-"))
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        data = scratch / f"data-{options.samples}"
        expected = make_data(data, options.samples)
        run(options.peers.split(","), data, scratch / f"peers-{options.samples}", expected, options)
    finally:
        if options.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)


def run(names: Sequence[str], data: Path, scratch: Path, expected: int, options: argparse.Namespace) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    pythons = {"": sys.executable}
    runners: list[Runner] = []
    problems: dict[str, str] = {}
    for name in names:
        requirements, workers, _ = PEERS[name]
        try:
            if requirements not in pythons:
                pythons[requirements] = make_environment(data.parent, requirements)
            numbers = [(number, 1) for number in workers] + [(0, os.cpu_count() or 1)]
            if options.threads is not None:
                numbers = [(0, options.threads)]
            runner = fastest(name, numbers, pythons[requirements], data, scratch, expected)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            problems[name] = str(error)
            continue
        runners.append(runner)
        print(f"{name}: checked, {runner.workers} workers, {runner.threads} threads", file=sys.stderr)
    for _ in range(options.rounds):
        for runner in runners:
            runner.rates.append(runner.time(options.seconds))
    for runner in runners:
        runner.stop()
    report(runners, problems, pythons, options)


def fastest(
    name: str, numbers: Sequence[tuple[int, int]], python: str, data: Path, scratch: Path, expected: int
) -> Runner:
    """The runner of a peer, checked, with those numbers of workers and threads that are best in a short trial."""
    trials = [
        Runner(name=name, workers=number, threads=threads, python=python, data=data, scratch=scratch)
        for number, threads in numbers
    ]
    rates = []
    for runner in trials:
        runner.start()
        try:
            found = runner.ask("check")
            if found["checksum"] != expected:
                raise RuntimeError(f"other ids: checksum {found['checksum']}, expected {expected}")
            rates.append(statistics.median(runner.time(0.5) for _ in range(3)))
        finally:
            runner.stop()
    best = trials[rates.index(max(rates))]
    best.start()
    best.time(0.2)
    return best


def report(
    runners: list[Runner], problems: dict[str, str], pythons: dict[str, str], options: argparse.Namespace
) -> None:
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    print(
        f"{cpu}, {os.cpu_count()} cores (load {os.getloadavg()[1]:.1f}), Linux {platform.release()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}. {options.samples:,} samples of 512-1,024 uint16 ids, "
        f"shuffled, batches of 256, int64 [256, 1024] out, in the page cache; median of {options.rounds} interleaved "
        f"rounds of {options.seconds} s. All deliver the same ids. Workers and threads: the best of several numbers.\n"
    )
    medians = {runner.name: statistics.median(runner.rates) for runner in runners}
    ours, limit = (medians.get(name, float("nan")) for name in ("hpcdata", "c_gather"))
    print(
        "| loader | | version | workers, threads | samples/s (lowest-highest) | hpcdata is | of C gather | RSS, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for runner in sorted(runners, key=lambda runner: -medians[runner.name]):
        python, rate = pythons[PEERS[runner.name][0]], medians[runner.name]
        low, high = min(runner.rates), max(runner.rates)
        print(
            f"| {runner.name} | {PEERS[runner.name][2]} | {version(python, runner.name)} | "
            f"{runner.workers}, {runner.threads} | {rate:,.0f} ({low:,.0f}-{high:,.0f}) | "
            f"{ours / rate:.2f} x | {rate / limit:.2f} | {runner.rss_mib:.0f} |"
        )
    for name, problem in problems.items():
        print(f"| {name} | not measured: {problem.splitlines()[0][:100]} | | | | | | |")


def version(python: str, name: str) -> str:
    if name.startswith("hpcdata"):
        return importlib.metadata.version("hpcdata")
    if name == "fixed_rows":
        return f"torch {importlib.metadata.version('torch')}"
    if name.startswith("c_gather"):
        return subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()
    code = f"import importlib.metadata as m; print(m.version({PACKAGES.get(name, name)!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def make_environment(scratch: Path, requirements: str) -> str:
    folder = scratch / f"venv-{Path(requirements).stem.removeprefix('requirements-')}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {requirements} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "-q", "-r", HERE / requirements]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return str(python)


def make_data(folder: Path, num_samples: int) -> int:
    """Writes ids.npy, ends.npy and the same samples as datasets of 1 and 1,000 parts; returns the checksum."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(512, 1025, num_samples)
    ids = generator.integers(0, 32_000, int(lengths.sum())).astype(np.uint16)
    ends = np.cumsum(lengths)
    places = np.arange(len(ids)) - np.repeat(ends - lengths, lengths) + 1
    checksum = int((ids.astype(np.int64) * places).sum()) % 2**64
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "ids.npy", ids)
        np.save(folder / "ends.npy", ends)
        for num_parts in (1, 1000):
            make_dataset(folder / f"dataset-{num_parts}", ids, lengths, num_parts)
        (folder / "complete").touch()
    return checksum


def make_dataset(folder: Path, ids: np.ndarray, lengths: np.ndarray, num_parts: int) -> None:
    """A dataset of texts as combine leaves it."""
    sys.path.insert(0, str(ROOT))
    from hpcdata.shards.columns import columns

    ends = np.cumsum(lengths)
    parts = []
    for part, rows in enumerate(np.array_split(np.arange(len(lengths)), num_parts)):
        own, count = lengths[rows], len(rows)
        start = int(ends[rows[0]] - own[0])
        tables = {
            "tokens/ids": ids[start : start + int(own.sum())],
            "spans/length": own,
            "spans/kind": np.zeros(count),
            "spans/grid": np.zeros((count, 2)),
            "spans/flags": np.full(count, 8),
            "samples/index": rows,
            "samples/first_token": np.cumsum(own) - own,
            "samples/first_span": np.arange(count),
            "samples/num_spans": np.ones(count),
            "samples/first_key": np.arange(count),
            "keys/bytes": np.full(count, ord("a")),
        }
        path = f"parts/{part:05d}-of-{num_parts:05d}"
        for column in columns("uint16"):
            file = folder / path / column.path
            file.parent.mkdir(parents=True, exist_ok=True)
            tables[column.path.removesuffix(".memmap")].astype(column.dtype).tofile(file)
        sizes = {"samples": count, "spans": count, "tokens": int(own.sum()), "key_bytes": count}
        parts.append({"path": path, "shard": part, "content_digest": f"{part:064x}", **sizes})
    num_samples = len(lengths)
    counts = {"inputs": num_samples, "written": num_samples, "rejected": {}, "text_tokens": int(lengths.sum())}
    manifest = {
        "format": "hpcdata-dataset-1",
        "fingerprint": "benchmark",
        "id_dtype": "uint16",
        "parts": parts,
        "counts": counts,
        "content_digest": "benchmark",
        "layout": {"block_size": 1024},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()

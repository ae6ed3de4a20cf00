"""How fast is fetching: python tests/benchmarks/fetching.py [--megabytes 1024] [--small 10000] [--folder FOLDER]

Against a server of this machine, in a process of its own:

    large   a file of `--megabytes`: hpcdata download (a process of its own, sha256 included) and curl, in turns
    killed  the same file, both killed at half of it and begun again: hpcdata download and snapshot_download
    small   `--small` files of 2 KB: hpcdata download, and a loop of asyncio (aiohttp, 32 at once) that checks nothing
    again   the same line when all is here, and `--check`, beside sha256sum

The server sends up to `--rate` MB/s a connection in `killed`, so that a kill can be at half.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

YAML = "name: bench\ntitle: t\nfolder: bench\nlicence: CC0\nsplits: {{}}\nhub: [{{repo: lab/{}}}]\n"
SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], repo_type="dataset", local_dir=sys.argv[2])
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--procs", type=int, default=12)
    parser.add_argument("--only", choices=("large", "killed", "small"))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make(folder, given.megabytes << 20, given.small)
        for part, run in (("large", large), ("killed", killed), ("small", small)):
            if given.only in (None, part):
                run(folder, given)
    return 0


def make(folder: Path, num_bytes: int, num_small: int) -> None:
    for repo in ("large", "small"):
        (folder / "hub/lab" / repo / "data").mkdir(parents=True)
    with open(folder / "hub/lab/large/data/one.bin", "wb") as file:
        for _ in range(num_bytes >> 20):
            file.write(os.urandom(1 << 20))
    for number in range(num_small):
        (folder / f"hub/lab/small/data/{number:06d}.txt").write_bytes(os.urandom(2000))


@contextlib.contextmanager
def server(folder: Path, rate: float = 0) -> Iterator[str]:
    line = [sys.executable, "-m", "tests.catalogue.hub", str(folder / "hub")]
    environment = {**os.environ, "HUB_RATE": str(rate * 1e6)}
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def start(folder: Path, url: str, repo: str, *words: str) -> subprocess.Popen[bytes]:
    (folder / "entries").mkdir(exist_ok=True)
    (folder / "entries/bench.yaml").write_text(YAML.format(repo))
    line = [sys.executable, "-m", "hpcdata.download", "bench", "--catalogue", str(folder / "entries"), *words]
    return subprocess.Popen(line, cwd=ROOT, env=environment(folder, url), **quiet())


def snapshot(folder: Path, url: str, repo: str) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-c", SNAPSHOT, f"lab/{repo}", str(folder / "snapshot")]
    return subprocess.Popen(line, env=environment(folder, url), **quiet())


def environment(folder: Path, url: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": url, "MOLMO_DATA_DIR": str(folder / "data"), "HF_HOME": str(folder / "home")}
    return {**os.environ, **own, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def quiet() -> dict[str, int]:
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def ended(process: subprocess.Popen[bytes]) -> None:
    assert process.wait() == 0, process.args


def clear(folder: Path) -> None:
    for name in ("data", "snapshot", "home", "curl.bin"):
        path = folder / name
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    os.sync()


def timed(run: Callable[[], object]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started


def large(folder: Path, given: argparse.Namespace) -> None:
    ours, curl = [], []
    with server(folder) as url:
        ended(start(folder, url, "large"))  # the server hashes its file once
        address = f"{url}/datasets/lab/large/resolve/main/data/one.bin"
        for _ in range(given.rounds):
            clear(folder)
            line = ["curl", "-s", "-o", str(folder / "curl.bin"), address]
            curl.append(timed(lambda line=line: subprocess.run(line, check=True)))  # type: ignore[misc]
            clear(folder)
            ours.append(timed(lambda: ended(start(folder, url, "large"))))
    show("one large file", given.megabytes, "MB/s", {"curl": curl, "hpcdata": ours})


def killed(folder: Path, given: argparse.Namespace) -> None:
    """What a person waits for after the kill."""
    times: dict[str, list[float]] = {"snapshot_download": [], "hpcdata": []}
    half_s = given.megabytes / given.rate / 2
    with server(folder, given.rate) as url:
        ended(start(folder, url, "large"))
        for _ in range(given.rounds):
            for name, begin in (("snapshot_download", snapshot), ("hpcdata", start)):
                clear(folder)
                process = begin(folder, url, "large")
                time.sleep(1 + half_s)
                process.send_signal(signal.SIGKILL)
                process.wait()
                times[name].append(timed(lambda begin=begin: ended(begin(folder, url, "large"))))  # type: ignore[misc]
    show("what is left to wait after a kill at half", given.megabytes, "MB/s of the file", times)


def small(folder: Path, given: argparse.Namespace) -> None:
    loop, ours = [], []
    words = ("--n-proc", str(given.procs))
    with server(folder) as url:
        ended(start(folder, url, "small", *words))
        for _ in range(given.rounds):
            clear(folder)
            loop.append(timed(lambda: asyncio.run(unchecked(folder, url, given.small))))
            clear(folder)
            ours.append(timed(lambda: ended(start(folder, url, "small", *words))))
        show("small files", given.small, "files/s", {"asyncio, unchecked": loop, "hpcdata": ours})
        again = [timed(lambda: ended(start(folder, url, "small", *words))) for _ in range(given.rounds)]
        print(f"the same line again, nothing to do: {statistics.median(again):.2f} s for {given.small} files")
    if given.only is None:
        with server(folder) as url:
            ended(start(folder, url, "large"))
            check = [timed(lambda: ended(start(folder, url, "large", "--check"))) for _ in range(given.rounds)]
            path = str(folder / "data/bench/data/one.bin")
            tool = [timed(lambda: subprocess.run(["sha256sum", path], check=True, **quiet())) for _ in range(3)]  # type: ignore[call-overload]
        show("reading back", given.megabytes, "MB/s", {"sha256sum": tool, "hpcdata --check": check})


async def unchecked(folder: Path, url: str, number: int) -> None:
    import aiohttp

    target, places = folder / "snapshot", asyncio.Semaphore(32)
    target.mkdir()
    async with aiohttp.ClientSession() as session:

        async def one(index: int) -> None:
            async with places, session.get(f"{url}/datasets/lab/small/resolve/main/data/{index:06d}.txt") as answer:
                (target / f"{index:06d}.txt").write_bytes(await answer.read())

        await asyncio.gather(*map(one, range(number)))


def show(what: str, amount: float, unit: str, times: dict[str, list[float]]) -> None:
    print(f"{what}, median of {len(next(iter(times.values())))}")
    first = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        seconds = statistics.median(found)
        print(f"    {name:<20} {seconds:8.2f} s {amount / seconds:10.0f} {unit} {first / seconds:6.2f}")
    print()


if __name__ == "__main__":
    sys.exit(main())

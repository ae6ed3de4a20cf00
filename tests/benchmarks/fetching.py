"""How fast is fetching: python tests/benchmarks/fetching.py [--megabytes 2048] [--small 10000] [--folder FOLDER]

Against a server of this machine, in a process of its own, that sends files by sendfile (`hub_server.py`). By turns:

    large   a file of `--megabytes`: hpcdata download (a process of its own; sha256 and a durable file included), curl,
            curl and sha256sum after it, curl and both that and a sync
    killed  the same file, both killed at half of it and begun again: hpcdata download and snapshot_download. The server
            holds each connection back to `--rate` MB/s, as servers on the web do; then all of them together; then none
    small   `--small` files of 2 KB: hpcdata download, and a loop of asyncio (aiohttp, 32 at once) that checks nothing
    again   the same line when all is here
    check   `--check` of the large file and of the small ones, beside sha256sum and openssl

CPU is that of the client's processes, in seconds.
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
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--procs", type=int, default=12)
    parser.add_argument("--only", choices=("large", "killed", "small", "again", "check"))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        make(folder, given)
        for part, run in (("large", large), ("killed", killed), ("small", small), ("again", again), ("check", check)):
            if given.only in (None, part):
                run(folder, given)
    return 0


def make(folder: Path, given: argparse.Namespace) -> None:
    for repo in ("large", "small"):
        (folder / "hub/lab" / repo / "data").mkdir(parents=True)
    block = os.urandom(1 << 20)
    if given.only in (None, "large", "killed", "check"):
        with open(folder / "hub/lab/large/data/one.bin", "wb") as file:
            for number in range(given.megabytes):
                file.write(number.to_bytes(8, "little") + block[8:])
    if given.only in (None, "small", "again", "check"):
        for number in range(given.small):
            (folder / f"hub/lab/small/data/{number:06d}.txt").write_bytes(os.urandom(2000))


@contextlib.contextmanager
def server(folder: Path, *words: str) -> Iterator[str]:
    line = [sys.executable, str(Path(__file__).with_name("hub_server.py")), str(folder / "hub"), *words]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
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


def snapshot(folder: Path, url: str, repo: str, *_: str) -> subprocess.Popen[bytes]:
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
    """Large files are removed; many small ones are put aside: ext4 makes new files slowly where others just went."""
    for name in ("data", "snapshot", "home", "curl.bin"):
        path = folder / name
        if path.is_file():
            path.unlink()
        elif path.exists() and sum(1 for _ in path.rglob("*")) > 1000:
            path.rename(folder / f"aside-{time.monotonic_ns()}")
        else:
            shutil.rmtree(path, ignore_errors=True)
    os.sync()


Times = dict[str, list[tuple[float, float]]]
"""Name -> (seconds, seconds of CPU) of each round."""


def timed(run: Callable[[], object]) -> tuple[float, float]:
    before, started = os.times(), time.monotonic()
    run()
    seconds, after = time.monotonic() - started, os.times()
    return seconds, sum(after[:4]) - sum(before[:4])


def by_turns(folder: Path | None, rounds: int, runs: dict[str, Callable[[], object]]) -> Times:
    """folder: what is fetched there is removed before each run."""
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if folder is not None:
                clear(folder)
            times[name].append(timed(run))
    return times


def large(folder: Path, given: argparse.Namespace) -> None:
    target = str(folder / "curl.bin")

    def curl(*more: Sequence[str]) -> None:
        subprocess.run(["curl", "-s", "-o", target, address], check=True)
        for line in more:
            subprocess.run(line, check=True, **quiet())  # type: ignore[call-overload]

    with server(folder) as url:
        address = f"{url}/datasets/lab/large/resolve/main/data/one.bin"
        runs = {
            "curl": curl,
            "hpcdata": lambda: ended(start(folder, url, "large")),
            "curl, sha256sum": lambda: curl(("sha256sum", target)),
            "curl, sha256sum, sync": lambda: curl(("sha256sum", target), ("sync", target)),
        }
        times = by_turns(folder, given.rounds, runs)
    show("one large file", given.megabytes, "MiB/s", times)


def killed(folder: Path, given: argparse.Namespace) -> None:
    """What a person waits for after the kill."""
    rate = str(given.rate)
    for what, words, half_s in (
        (f"{rate} MB/s a connection", ("--rate", rate), given.megabytes * 1.05 / given.rate / 2),
        (f"{rate} MB/s altogether", ("--link", rate), given.megabytes * 1.05 / given.rate / 2),
    ):
        times: Times = {"snapshot_download": [], "hpcdata": []}
        with server(folder, *words) as url:
            for _ in range(given.rounds):
                for name, begin in (("snapshot_download", snapshot), ("hpcdata", start)):
                    clear(folder)
                    process = begin(folder, url, "large", *(("--connections", "1") if begin is start else ()))
                    wait_for(folder, given.megabytes << 19, 10 + 2 * half_s)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    times[name].append(timed(lambda begin=begin: ended(begin(folder, url, "large"))))  # type: ignore[misc]
        show(f"what is left to wait after a kill at half, {what}", given.megabytes, "MiB/s of the file", times)


def wait_for(folder: Path, num_bytes: int, most_s: float) -> None:
    """Until so much of a file is on the disk."""
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        found = [path for name in ("data", "snapshot") for path in (folder / name).rglob("*") if path.is_file()]
        with contextlib.suppress(FileNotFoundError):
            if sum(path.stat().st_blocks * 512 for path in found) >= num_bytes:
                return
        time.sleep(0.01)
    raise AssertionError("half of the file did not come")


def small(folder: Path, given: argparse.Namespace) -> None:
    words = ("--n-proc", str(given.procs))
    with server(folder) as url:
        runs = {
            "asyncio, unchecked": lambda: asyncio.run(unchecked(folder, url, given.small)),
            "hpcdata": lambda: ended(start(folder, url, "small", *words)),
        }
        show("small files", given.small, "files/s", by_turns(folder, given.rounds, runs))


def again(folder: Path, given: argparse.Namespace) -> None:
    clear(folder)
    with server(folder) as url:
        ended(start(folder, url, "small", "--n-proc", str(given.procs)))
        times = by_turns(None, given.rounds, {"hpcdata": lambda: ended(start(folder, url, "small"))})
    show("the same line again, nothing to do", given.small, "files/s", times)


def check(folder: Path, given: argparse.Namespace) -> None:
    for repo, amount, unit in (("large", given.megabytes, "MiB/s"), ("small", given.small, "files/s")):
        clear(folder)
        with server(folder) as url:
            ended(start(folder, url, repo, "--n-proc", "4"))
            data = str(folder / "data/bench/data")
            tool = f"find {data} -type f -print0 | xargs -0 "
            runs = {
                name: lambda line=tool + name: subprocess.run(line, shell=True, check=True, **quiet())  # type: ignore
                for name in ("sha256sum", "openssl dgst -sha256")
                if shutil.which(name.split()[0])
            }
            runs["hpcdata --check"] = lambda url=url, repo=repo: ended(start(folder, url, repo, "--check"))  # type: ignore
            runs["sha256sum"]()
            show(f"reading back, {repo}", amount, unit, by_turns(None, given.rounds, runs))


async def unchecked(folder: Path, url: str, number: int) -> None:
    import aiohttp

    target, places = folder / "snapshot", asyncio.Semaphore(32)
    target.mkdir()
    async with aiohttp.ClientSession() as session:

        async def one(index: int) -> None:
            async with places, session.get(f"{url}/datasets/lab/small/resolve/main/data/{index:06d}.txt") as answer:
                (target / f"{index:06d}.txt").write_bytes(await answer.read())

        await asyncio.gather(*map(one, range(number)))


def show(what: str, amount: float, unit: str, times: Times) -> None:
    print(f"{what}, median of {len(next(iter(times.values())))}")
    first = statistics.median(seconds for seconds, _ in next(iter(times.values())))
    for name, found in times.items():
        seconds, cpu = (statistics.median(values) for values in zip(*found, strict=True))
        rate = f"{amount / seconds:10.0f} {unit}"
        print(f"    {name:<24} {seconds:8.2f} s {rate} {first / seconds:6.2f}   CPU {cpu:6.2f} s")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())

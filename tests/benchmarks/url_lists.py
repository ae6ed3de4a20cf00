"""How fast are lists of URLs fetched, beside an asyncio loop that checks nothing?

python tests/benchmarks/url_lists.py [--number 10000] [--connections 32]

A server process on loopback gives small JPEGs over kept connections. The loop asks for all of them with aiohttp and
appends the bytes to one file. The stage `fetch` plans, asks, compares sha256, decodes, writes tars, checkpoints and
commits, in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from hpcdata.config.compose import compose
from hpcdata.history.ledger import read_ledgers
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, start_task

NUM_PICTURES = 64
SIZE = (96, 64)


def pictures() -> list[bytes]:
    found = []
    for number in range(NUM_PICTURES):
        buffer = io.BytesIO()
        smooth = np.linspace(0, 255, SIZE[0] * SIZE[1] * 3).reshape(SIZE[1], SIZE[0], 3)
        noise = np.random.RandomState(number).randint(0, 40, smooth.shape)
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


class Pages(asyncio.Protocol):
    """HTTP in the few lines that this needs: a path that ends in a number is that picture."""

    answers: ClassVar[list[bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._rest = transport, b""

    def data_received(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for request in whole:
            path = request.partition(b" ")[2].partition(b" ")[0]
            number = int(path.rpartition(b"/")[2])
            self._transport.write(self.answers[number % len(self.answers)])  # type: ignore[attr-defined]


def serve(found: list[bytes], told: Connection) -> None:
    head = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    Pages.answers = [head.format(len(data)).encode() + data for data in found]

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Pages, "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def ask(urls: list[str], connections: int, out: Path) -> None:
    import aiohttp

    waiting = iter(urls)
    with open(out, "wb") as file:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

            async def work() -> None:
                for url in waiting:
                    async with session.get(url) as answer:
                        file.write(await answer.read())

            await asyncio.gather(*(work() for _ in range(connections)))


def fetch(source: Path, out: Path, connections: int, *options: str) -> float:
    """Seconds of a whole run, without its plan."""
    arguments = [
        *("stage=fetch", f"data.raw_data_dir={source}", f"data.token_output_dir={out}", "fetch.allow_private=true"),
        *("fetch.host_rate=null", "fetch.host_connections=null", f"fetch.connections={connections}", *options),
    ]
    prepare(compose(arguments))
    started = time.perf_counter()
    assert run_task(out, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    return time.perf_counter() - started


def fetch_by_tasks(source: Path, out: Path, connections: int, num_tasks: int, *options: str) -> float:
    """Seconds from the first claim of so many processes to the last commit."""
    arguments = [
        *("stage=fetch", f"data.raw_data_dir={source}", f"data.token_output_dir={out}", "fetch.allow_private=true"),
        *("fetch.host_rate=null", "fetch.host_connections=null", f"fetch.connections={connections}", *options),
    ]
    prepare(compose(arguments))
    for task in [start_task(out) for _ in range(num_tasks)]:
        assert task.wait() == 0
    events = [event for _, events in read_ledgers(out / "ledger") for event in events]
    times = {name: [event["time"] for event in events if event["event"] == name] for name in ("claim", "commit")}
    return max(times["commit"]) - min(times["claim"])


def cpu_s() -> float:
    """Of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = pictures()
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(found, theirs), daemon=True)
    server.start()
    port = mine.recv()
    urls = [f"http://127.0.0.1:{port}/{number}" for number in range(options.number)]
    sums = [hashlib.sha256(data).hexdigest() for data in found]
    size = sum(map(len, found)) / len(found)
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    print(f"{options.number} pictures of {size:.0f} bytes, {options.connections} connections\n")
    print("| | pictures/s | of the loop | CPU, us a picture |\n|---|---:|---:|---:|")
    best: dict[str, tuple[float, float]] = {}

    def time_it(name: str, work: Callable[[], float]) -> None:
        before = cpu_s()
        seconds = work()
        used = 1e6 * (cpu_s() - before) / options.number
        best[name] = tuple(map(min, (seconds, used), best.get(name, (seconds, used))))  # type: ignore[assignment]

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        rows = ({"url": url, "sha256": sums[number % NUM_PICTURES]} for number, url in enumerate(urls))
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        shards, unseen = f"data.shard_size={options.number // 8}", "fetch.decode=false"
        for turn in range(options.rounds):

            def loop() -> float:
                started = time.perf_counter()
                asyncio.run(ask(urls, options.connections, Path(folder, "all")))
                return time.perf_counter() - started

            def ours(name: str, num_tasks: int, *settings: str, turn: int = turn) -> None:
                out = Path(folder, f"run{turn}-{len(best)}-{num_tasks}{len(settings)}")
                arguments = (source, out, options.connections)
                if num_tasks == 1:
                    time_it(name, lambda: fetch(*arguments, *settings))
                else:
                    time_it(name, lambda: fetch_by_tasks(*arguments, num_tasks, *settings))

            time_it("an asyncio loop with aiohttp, without checks", loop)
            ours("hpcdata: sha256, kind, tars, checkpoints", 1, unseen)
            ours("the same in two processes", 2, unseen, shards)
            ours("hpcdata: the same, and decoded", 1)
            ours("the same in two processes, decoded", 2, shards)
    first = next(iter(best.values()))[0]
    for name, (seconds, used) in best.items():
        print(f"| {name} | {options.number / seconds:,.0f} | {first / seconds:.2f} | {used:.0f} |")
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()

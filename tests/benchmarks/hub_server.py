"""A hub that costs little: python tests/benchmarks/hub_server.py FOLDER [--rate MB/s] [--link MB/s]

Serves FOLDER/OWNER/NAME/... as repositories of data sets, with ranges, and prints its address. Large files go by
sendfile, small ones with one call. `tests/catalogue/hub.py` misbehaves, this one is only to be fast. --rate holds each
connection back, --link all of them together.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_SMALL, _PAGE = 1 << 16, 10_000


class Pace:
    """Bytes a second, of all who ask it for leave."""

    def __init__(self, rate: float) -> None:
        self._rate, self._lock, self._free_at = rate, threading.Lock(), 0.0

    def take(self, count: int) -> None:
        if self._rate:
            with self._lock:
                now = time.monotonic()
                self._free_at = max(self._free_at, now - 0.01) + count / self._rate
                until = self._free_at
            if until > now:
                time.sleep(until - now)


class Server:
    def __init__(self, folder: Path, rate: float, link: float) -> None:
        self._folder, self._rate, self._link = folder, rate, Pace(link)
        self._repos = {f"{path.parent.name}/{path.name}": self._listed(path) for path in folder.glob("*/*")}
        self._files = {
            f"{repo}/{item['path']}": str(item["lfs"]["oid"]) for repo in self._repos for item in self._repos[repo]
        }
        self._small: dict[str, bytes] = {}

    def _listed(self, base: Path) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in sorted(item for item in base.rglob("*") if item.is_file()):
            with open(path, "rb") as file:
                oid, size = hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
            name = str(path.relative_to(base))
            entry = {"type": "file", "path": name, "size": size, "oid": oid[:40]}
            found.append({**entry, "lfs": {"oid": oid, "size": size, "pointerSize": 134}})
        return found

    def serve(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection, Pace(self._rate)), daemon=True).start()

    def _talk(self, connection: socket.socket, pace: Pace) -> None:
        data = b""
        try:
            with connection:
                while True:
                    while (end := data.find(b"\r\n\r\n")) < 0:
                        more = connection.recv(65536)
                        if not more:
                            return
                        data += more
                    head, data = data[:end].decode("latin-1"), data[end + 4 :]
                    self._answer(connection, pace, head)
        except OSError:
            return

    def _answer(self, connection: socket.socket, pace: Pace, head: str) -> None:
        line, *lines = head.split("\r\n")
        method, target, _ = line.split(" ")
        path = unquote(target.partition("?")[0])
        words = path.strip("/").split("/")
        if words[0] == "datasets" and words[3] == "resolve":
            name = "/".join([*words[1:3], *words[5:]])
            if name in self._files:
                headers = {key.lower(): value.strip() for key, _, value in (item.partition(":") for item in lines)}
                return self._send(connection, pace, method, name, headers.get("range", ""))
        if words[:2] == ["api", "datasets"] and (repo := "/".join(words[2:4])) in self._repos:
            entries, link = self._repos[repo], ""
            if len(words) > 4 and words[4] == "tree":
                query = dict(item.partition("=")[::2] for item in urlsplit(target).query.split("&"))
                begin = int(query.get("cursor", 0))
                if begin + _PAGE < len(entries):
                    link = f'Link: <{path}?recursive=true&cursor={begin + _PAGE}>; rel="next"\r\n'
                return _reply(connection, 200, json.dumps(entries[begin : begin + _PAGE]).encode(), link)
            siblings = [{"rfilename": item["path"]} for item in entries]
            dates = {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
            flags = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0}
            info = {"_id": "1", "id": repo, "sha": COMMIT, "siblings": siblings, **dates, **flags}
            return _reply(connection, 200, json.dumps(info).encode())
        return _reply(connection, 404, b'{"error": "not found"}')

    def _send(self, connection: socket.socket, pace: Pace, method: str, name: str, asked: str) -> None:
        path, oid = self._folder / name, self._files[name]
        size = os.stat(path).st_size
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin, end = int(first or 0), min(size, int(last) + 1) if last else size
        head = (
            f'HTTP/1.1 {206 if asked else 200} OK\r\nContent-Length: {end - begin}\r\nETag: "{oid}"\r\n'
            f"Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\nX-Repo-Commit: {COMMIT}\r\n"
            f'X-Linked-Size: {size}\r\nX-Linked-ETag: "{oid}"\r\n'
        )
        if asked:
            head += f"Content-Range: bytes {begin}-{end - 1}/{size}\r\n"
        data = head.encode() + b"\r\n"
        if method == "HEAD":
            connection.sendall(data)
        elif size <= _SMALL:
            if name not in self._small:
                self._small[name] = path.read_bytes()
            connection.sendall(data + self._small[name][begin:end])
        else:
            connection.sendall(data)
            with open(path, "rb") as file:
                self._send_file(connection, pace, file.fileno(), begin, end)

    def _send_file(self, connection: socket.socket, pace: Pace, file: int, begin: int, end: int) -> None:
        most = 1 << 20 if self._rate or self._link._rate else end - begin
        while begin < end:
            count = os.sendfile(connection.fileno(), file, begin, min(most, end - begin))
            begin += count
            pace.take(count)
            self._link.take(count)


def _reply(connection: socket.socket, status: int, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--link", type=float, default=0)
    given = parser.parse_args()
    server = Server(given.folder, given.rate * 1e6, given.link * 1e6)
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        server.serve(listener)


if __name__ == "__main__":
    sys.exit(main())

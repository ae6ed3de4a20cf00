"""A hub and a web server that misbehave on demand, on the loopback of this machine.

    with Hub(folder) as hub:                 folder/OWNER/NAME/... are repositories of data sets
        hub.misbehave("cut", times=2)        the next two files stop half way
        hub.requests                         what was asked, and how many bytes were sent

`HF_ENDPOINT=hub.url` makes huggingface_hub and datasets use it, too. `python -m tests.catalogue.hub FOLDER` serves
until it is stopped.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import socketserver
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIXED = ("norange", "cdn", "gated", "noetag", "nolength")
"""Faults that stay until they are taken away."""
_LFS = (".parquet", ".zip", ".tar", ".gz", ".bin", ".jsonl")
_BLOCK = 1 << 16


@dataclass
class Request:
    method: str
    path: str
    status: int
    begin: int = 0
    sent: int = 0
    """Bytes of the body."""
    authorized: bool = False
    agent: str = ""
    time: float = 0.0


@dataclass
class Rule:
    kind: str
    times: int
    part: str
    value: Any = None


@dataclass
class Hub:
    """page_size: files of one page of a tree listing. rate: bytes a second of one connection."""

    folder: Path
    page_size: int = 1000
    rate: float = 0.0
    token: str = "hf_secret"
    requests: list[Request] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    commit: str = COMMIT

    def __enter__(self) -> Hub:
        self._lock = threading.Lock()
        self._digests: dict[tuple[str, int, int], tuple[str, str]] = {}
        self._servers = [_serve(self, is_cdn=is_cdn) for is_cdn in (False, True)]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def misbehave(self, kind: str, *, times: int = 1, part: str = "", value: Any = None) -> None:
        """part: of the path. kinds: see `_Handler`."""
        with self._lock:
            self.rules.append(Rule(kind, times, part, value))

    def behave(self) -> None:
        with self._lock:
            self.rules.clear()

    def taken(self, kind: str, path: str) -> Rule | None:
        with self._lock:
            for rule in self.rules:
                if rule.kind == kind and rule.part in path and rule.times > 0:
                    rule.times -= kind not in FIXED
                    return rule
        return None

    def noted(self, request: Request) -> Request:
        with self._lock:
            self.requests.append(request)
        return request

    def downloads(self) -> list[Request]:
        return [request for request in self.requests if "/resolve/" in request.path or "/files/" in request.path]

    def bytes_of(self, name: str) -> int:
        return sum(request.sent for request in self.downloads() if request.path.endswith(name))

    def digests(self, path: Path) -> tuple[str, str]:
        """(sha256, sha1 of the git blob)."""
        found = path.stat()
        key = (str(path), found.st_size, found.st_mtime_ns)
        if key not in self._digests:
            data = path.read_bytes()
            self._digests[key] = (
                hashlib.sha256(data).hexdigest(),
                hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
            )
        return self._digests[key]

    def listed(self, repo: str) -> list[dict[str, Any]]:
        base, found = self.folder / repo, []
        for path in sorted(item for item in base.rglob("*") if item.is_file()):
            sha256, sha1 = self.digests(path)
            name, size = str(path.relative_to(base)), path.stat().st_size
            entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": sha1}
            if name.endswith(_LFS):
                entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
            found.append(entry)
        return found


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are wanted here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub
    is_cdn: bool

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.match(r"/api/datasets/([^/]+/[^/]+)/paths-info/", self.path)
        if found is None:
            return self.answer(404, {"error": "not found"})
        asked = json.loads(body)["paths"] if body[:1] == b"{" else urllib.parse.parse_qs(body.decode())["paths"]
        return self.answer(200, [item for item in self.hub.listed(found[1]) if item["path"] in asked])

    def do_GET(self) -> None:
        quoted = urllib.parse.urlsplit(self.path).path
        path = urllib.parse.unquote(quoted)
        for kind in ("status", "hang"):
            if rule := self.hub.taken(kind, path):
                if kind == "hang":
                    time.sleep(rule.value)
                    return self.answer(503, {})
                status, headers = rule.value if isinstance(rule.value, tuple) else (rule.value, {})
                return self.answer(status, {"error": "as asked"}, headers)
        if self.hub.taken("gated", path) and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer(401, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        for pattern, action in (
            (r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", self.info),
            (r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", self.tree),
            (r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
            (r"/files/(.+)", self.file),
        ):
            if found := re.fullmatch(pattern, quoted):  # a revision such as refs/convert/parquet has its slashes quoted
                return action(*(None if word is None else urllib.parse.unquote(word) for word in found.groups()))
        return self.answer(404, {"error": "not found"})

    def info(self, repo: str, revision: str | None) -> None:
        if not (self.hub.folder / repo).is_dir():
            return self.answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        siblings = [{"rfilename": item["path"], "size": item["size"]} for item in self.hub.listed(repo)]
        dates = {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
        flags = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
        return self.answer(
            200, {"_id": "1", "id": repo, "sha": self.hub.commit, "siblings": siblings, **dates, **flags}
        )

    def tree(self, repo: str, revision: str, below: str) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        entries, recursive = self.hub.listed(repo), asked.get("recursive", [""])[0].lower() in ("1", "true")
        if below:
            entries = [item for item in entries if item["path"].startswith(f"{below}/")]
        if not recursive:
            depth = len(below.split("/")) if below else 0
            folders = {
                "/".join(item["path"].split("/")[: depth + 1]) for item in entries if item["path"].count("/") > depth
            }
            entries = [item for item in entries if item["path"].count("/") == depth]
            entries += [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        if rule := self.hub.taken("listing", self.path):
            entries = rule.value(entries)
        if below and not entries:
            return self.answer(404, {"error": "none"}, {"X-Error-Code": "EntryNotFound"})
        begin = int(asked.get("cursor", ["0"])[0])
        end = begin + self.hub.page_size
        link = {}
        if end < len(entries):
            link["Link"] = (
                f'<{self.hub.url}{urllib.parse.urlsplit(self.path).path}?recursive=true&cursor={end}>; rel="next"'
            )
        return self.answer(200, entries[begin:end], link)

    def resolve(self, repo: str, revision: str, name: str) -> None:
        path = self.hub.folder / repo / name
        if not path.is_file():
            return self.answer(
                404, {"error": "none"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.commit}
            )
        if self.is_cdn and self.hub.taken("expired", self.path):
            return self.answer(403, {"error": "Request has expired"})
        if self.hub.taken("cdn", self.path) and not self.is_cdn:
            target = f"{self.hub.cdn}{urllib.parse.urlsplit(self.path).path}?signature=secret"
            return self.answer(302, {}, {"Location": target})
        sha256, sha1 = self.hub.digests(path)
        is_lfs = name.endswith(_LFS)
        etag = f'"{sha256 if is_lfs else sha1}"'
        headers = {"X-Repo-Commit": self.hub.commit}
        if is_lfs:
            headers |= {"X-Linked-Size": str(path.stat().st_size), "X-Linked-ETag": etag}
        return self.send(path, etag, headers)

    def file(self, name: str) -> None:
        path = self.hub.folder / name
        if not path.is_file():
            return self.answer(404, b"<html>nothing here</html>", {"Content-Type": "text/html"})
        return self.send(path, f'"{self.hub.digests(path)[0]}"', {})

    def send(self, path: Path, etag: str, headers: dict[str, str]) -> None:
        hub, size, begin, status = self.hub, path.stat().st_size, 0, 200
        if hub.taken("page", self.path):
            return self.answer(200, b"<html>please prove that you are no robot</html>", {"Content-Type": "text/html"})
        if hub.taken("noetag", self.path):
            etag = ""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        last = size
        same = self.headers.get("If-Range", etag) == etag
        if asked and same and not hub.taken("norange", self.path):
            begin, status = int(asked[1]), 206
            last = min(size, int(asked[2]) + 1) if asked[2] else size
            if begin >= size:
                return self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
        said = last - begin
        if rule := hub.taken("lie", self.path):
            said = rule.value
        fields = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        if not hub.taken("nolength", self.path):
            fields["Content-Length"] = str(said)
        else:
            fields["Connection"] = "close"
        if etag:
            fields["ETag"] = etag
        if status == 206:
            fields["Content-Range"] = f"bytes {begin}-{last - 1}/{size}"
        self.send_response(status)
        for key, value in fields.items():
            self.send_header(key, value)
        self.end_headers()
        note = hub.noted(self.request_note(status, begin))
        if self.command == "HEAD":
            return None
        end = last
        if hub.taken("cut", self.path):
            end = begin + (last - begin) // 2
        flip = hub.taken("flip", self.path)
        self.wfile.flush()
        with open(path, "rb") as file:
            self.body(file, begin, min(end, begin + said), bool(flip), note)
        if end < last or said != last - begin or "Connection" in fields:
            self.close_connection = True
            self.connection.shutdown(2)
        return None

    def body(self, file: Any, begin: int, end: int, flip: bool, note: Request) -> None:
        try:
            if not self.hub.rate and not flip:
                note.sent = self.connection.sendfile(file, begin, end - begin) if end > begin else 0
                return
            file.seek(begin)
            while note.sent < end - begin:
                data = file.read(min(_BLOCK, end - begin - note.sent))
                if flip and note.sent == 0:
                    data = bytes([data[0] ^ 1]) + data[1:]
                self.wfile.write(data)
                note.sent += len(data)
                if self.hub.rate:
                    time.sleep(len(data) / self.hub.rate)
        except (BrokenPipeError, ConnectionResetError):
            note.sent = min(file.tell() - begin, end - begin)
            self.close_connection = True

    def request_note(self, status: int, begin: int = 0) -> Request:
        authorized, agent = "Authorization" in self.headers, self.headers.get("User-Agent", "")
        return Request(self.command, self.path, status, begin, 0, authorized, agent, time.monotonic())

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.hub.noted(self.request_note(status))
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _serve(hub: Hub, *, is_cdn: bool) -> _Server:
    handler = type("Handler", (_Handler,), {"hub": hub, "is_cdn": is_cdn})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def main() -> None:
    with Hub(Path(sys.argv[1]), rate=float(os.environ.get("HUB_RATE", "0"))) as hub:
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

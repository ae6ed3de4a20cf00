"""A server on loopback that does what servers on the web do: says no, says later, cuts, lies, and trickles.

    with Server() as server:
        server.put("/a.jpg", data, "429", "cut")     the first request gets 429, the second half of it, the others all
        server.url("/a.jpg"), server.asked           what was asked for, in order

Faults are taken one a request; a last one with `*` (`"503*"`) stays. Bodies have an ETag and are served by ranges.

    429, 503, 500 ...   that status; `429:2` with `Retry-After: 2`
    cut                 Content-Length as it should be, half of the body, the end
    short, long         a Content-Length that is 1 too small, 1 too large
    corrupt             one byte is another, at the same size
    html                200 and a page that says sorry
    loop, to:URL        a redirect to itself, to there
    once:PATH           a redirect to PATH?signature=N, which is good for one request and then 403 (`expired`)
    norange             ignores Range
    slow:S              S seconds before the answer; drip:S S seconds between the bytes of the body
    silent              no answer, the connection stays; close  no answer, the connection ends; junk  no HTTP
    chunked, chunkcut   the body in chunks; and an end in the midst of one
    gzip                packed, whatever was accepted
    bomb                a kilobyte that unpacks to a megabyte
    endless             chunks without end
    headers             headers without end
    robots:WORDS        with `X-Robots-Tag: WORDS`
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import itertools
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    status: int
    headers: dict[str, str]
    at: float
    """time.monotonic()"""

    @property
    def range(self) -> str:
        return self.headers.get("range", "")


@dataclass(kw_only=True)
class _Page:
    body: bytes
    kind: str
    faults: list[str] = field(default_factory=list)
    once: set[str] = field(default_factory=set)
    """Signatures that are good for one more request; none were given: it needs none."""
    is_signed: bool = False


class Server:
    """A context manager. `asked` grows with each answer that begins."""

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1", certificate: Path | None = None) -> None:
        """certificate: for TLS, with its key in the same file."""
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._pages: dict[str, _Page] = {}
        self._lock, self._at_once, self._signatures = threading.Lock(), 0, itertools.count()
        self._closing = threading.Event()
        own = self

        class Handler(_Handler):
            server_of_pages = own

        self._server = _Listening((host, port), Handler)
        self._scheme = "http"
        if certificate is not None:
            self._scheme, context = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(  # hands are shaken where requests are answered
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def put(self, path: str, body: bytes, *faults: str, kind: str = "application/octet-stream") -> str:
        """The URL of a page, which is replaced where it is there."""
        self._pages[path] = _Page(body=body, kind=kind, faults=list(faults))
        return self.url(path)

    def remove(self, path: str) -> None:
        self._pages.pop(path, None)

    def url(self, path: str) -> str:
        host, port = self._server.server_address[:2]
        return f"{self._scheme}://{host!s}:{port}{path}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(item.path == path for item in self.asked)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, path: str) -> tuple[_Page | None, str]:
        """A page and the fault that this request gets."""
        with self._lock:
            page = self._pages.get(path)
            if page is None or not page.faults:
                return page, ""
            fault = page.faults[0]
            if fault.endswith("*"):
                return page, fault[:-1]
            return page, page.faults.pop(0)

    def sign(self, page: _Page, path: str) -> str:
        with self._lock:
            target, signature = self._pages[path], str(next(self._signatures))
            target.is_signed = True
            target.once.add(signature)
        return f"{path}?signature={signature}"

    def is_good(self, page: _Page, signature: str) -> bool:
        with self._lock:
            if signature not in page.once:
                return not page.is_signed
            page.once.discard(signature)
            return True

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def count(self, step: int) -> None:
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)

    def wait(self, seconds: float) -> None:
        """Less where the server is to end."""
        self._closing.wait(seconds)


class _Listening(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may leave whenever they like."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    server_of_pages: Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: see `Server.asked`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server_of_pages.count(1)
        try:
            self._answer()
        finally:
            self.server_of_pages.count(-1)

    def _answer(self) -> None:
        server, parts = self.server_of_pages, urlsplit(self.path)
        page, fault = server.take(parts.path)
        name, _, value = fault.partition(":")
        if page is None:
            self._say(404, b"nothing here")
            return
        if not server.is_good(page, parts.query.partition("signature=")[2]):
            self._say(403, b"expired")
            return
        if name.isdigit():
            self._say(int(name), b"<html>later, or never</html>", {"Retry-After": value} if value else {})
            return
        if name in ("loop", "to", "once"):
            places = {"loop": self.path, "to": value, "once": ""}
            self._say(302, b"", {"Location": places[name] or server.sign(page, value)})
            return
        if name == "html":
            self._say(200, b"<html><body>sorry</body></html>", kind="text/html; charset=utf-8")
            return
        if name == "silent":
            self._note(0)
            server.wait(60)
        if name in ("silent", "close", "junk"):
            if name != "silent":
                self._note(0)
            self.wfile.write(b"SSH-2.0-none\r\n" if name == "junk" else b"")
            self.close_connection = True
            return
        if name in ("endless", "headers"):
            self._note(200)
            self._pour(name)
            return
        if name == "slow":
            server.wait(float(value))
        self._serve(page, name, value)

    def _serve(self, page: _Page, name: str, value: str) -> None:
        body, headers, status = page.body, {"ETag": f'"{hashlib.sha256(page.body).hexdigest()[:16]}"'}, 200
        if name == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if name == "robots":
            headers["X-Robots-Tag"] = value
        if name in ("gzip", "bomb"):
            packed = body if name == "gzip" else bytes(1 << 20)
            body, headers["Content-Encoding"] = gzip.compress(packed), "gzip"
        elif name not in ("norange", "chunked", "chunkcut"):
            headers["Accept-Ranges"] = "bytes"
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            if wanted and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
                first, _, last = wanted.partition("-")
                begin, end = int(first), min(int(last) + 1 if last else len(body), len(body))
                if begin >= len(body):
                    self._say(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                    return
                status, headers["Content-Range"] = 206, f"bytes {begin}-{end - 1}/{len(body)}"
                body = body[begin:end]
        self._say(status, body, headers, kind=page.kind, fault=name, value=value)

    def _say(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        kind: str = "text/plain",
        fault: str = "",
        value: str = "",
    ) -> None:
        self._note(status)
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, text in {"Content-Type": kind, **(headers or {})}.items():
                self.send_header(name, text)
            if fault.startswith("chunk"):
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                return self._send_chunks(body, is_cut=fault == "chunkcut")
            self.send_header("Content-Length", str(len(body) + {"short": -1, "long": 1}.get(fault, 0)))
            self.end_headers()
            if self.command == "HEAD":
                return None
            if fault == "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    self.server_of_pages.wait(float(value))
            else:
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            if fault in ("cut", "short", "long"):
                self.close_connection = True
        return None

    def _pour(self, name: str) -> None:
        """Until whoever asked leaves."""
        self.close_connection = True
        chunked = b"Transfer-Encoding: chunked\r\n\r\n" if name == "endless" else b""
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n" if name == "endless" else b"X: y\r\n" * 1000
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + chunked)
            while not self.server_of_pages._closing.is_set():
                self.wfile.write(piece)
                self.wfile.flush()

    def _send_chunks(self, body: bytes, *, is_cut: bool) -> None:
        for start in range(0, len(body), 4096):
            piece = body[start : start + 4096]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.close_connection = self.close_connection or is_cut
        self.wfile.write(b"5\r\nab" if is_cut else b"0\r\n\r\n")

    def _note(self, status: int) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(
            method=self.command, path=urlsplit(self.path).path, status=status, headers=headers, at=time.monotonic()
        )
        self.server_of_pages.note(asked)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])

"""Files whose size and sum nobody publishes: nothing but the whole file is taken for it, whatever its server says.

pytest tests/catalogue/test_unpromised.py
"""

from __future__ import annotations

import http.server
import io
import socketserver
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hpcdata.catalogue.entry import WebFile
from hpcdata.catalogue.faults import Wanted, fault_of_status
from hpcdata.catalogue.fetching import Account, Options, fetch_set
from hpcdata.catalogue.settings import Hub
from hpcdata.catalogue.web import Web
from tests.catalogue.sets import MIB, entry

OLD, NEW = bytes(range(256)) * 16384, bytes(reversed(range(256))) * 16384
HALF = len(OLD) // 2
CUT = (200, OLD, {"ETag": '"old"'}, HALF)
"""Status, body, headers, and how many bytes of the body come."""
Reply = tuple[int, bytes, dict[str, str], int]
Script = Callable[[int, int | None], Reply]
"""Of the number of the request (from 1) and where its range begins (None: it has none)."""


@contextmanager
def served(script: Script) -> Iterator[tuple[str, list[int | None]]]:
    asked: list[int | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            given = self.headers.get("Range")
            asked.append(None if given is None else int(given[6:].partition("-")[0]))
            status, body, headers, size = script(len(asked), asked[-1])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[:size])

    server = type("Server", (socketserver.ThreadingMixIn, http.server.HTTPServer), {"daemon_threads": True})(
        ("127.0.0.1", 0), Handler
    )
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def fetched(folder: Path, url: str, name: str = "a.bin", **known: Any) -> Account:
    def sleep(seconds: float) -> bool:
        time.sleep(min(seconds, 0.01))
        return False

    hub, one = Hub(endpoint=url), entry(hub=(), files=(WebFile(url=f"{url}/{name}", path=name, **known),))
    with Web(hub, wait=sleep, timeout_s=5) as web:
        return fetch_set(one, folder, web, hub, Options(patience_s=2, interval=MIB), sleep)


def rest(data: bytes, begin: int | None, etag: str, end: int | None = None, total: str = "") -> Reply:
    if begin is None:
        return 200, data, {"ETag": etag}, len(data)
    body = data[begin:end]
    headers = {"ETag": etag, "Content-Range": f"bytes {begin}-{begin + len(body) - 1}/{total or len(data)}"}
    return 206, body, headers, len(body)


def no_range(total: str) -> Reply:
    return 416, b"", {"Content-Range": f"bytes */{total}"} if total else {}, 0


def changed_and_untold(number: int, begin: int | None) -> Reply:
    return (200, OLD, {}, HALF) if number == 1 else rest(NEW, begin, "")


def changed_and_told(number: int, begin: int | None) -> Reply:
    return CUT if number == 1 else rest(NEW, begin, '"new"')  # whatever If-Range says


def shrunk(number: int, begin: int | None) -> Reply:
    return CUT if number == 1 else no_range(str(MIB)) if begin else rest(NEW, begin, '"new"')


def has_no_ranges(number: int, begin: int | None) -> Reply:
    return CUT if number == 1 else no_range("") if begin else rest(NEW, begin, '"old"')


def in_pieces(number: int, begin: int | None) -> Reply:
    if number == 1:
        return 200, NEW, {"ETag": '"new"'}, HALF
    if (begin or 0) >= len(NEW):
        return no_range(str(len(NEW)))
    return rest(NEW, begin, '"new"', (begin or 0) + MIB // 2, "*")


@pytest.mark.parametrize("script", [changed_and_untold, changed_and_told, shrunk, has_no_ranges, in_pieces])
def test_a_part_is_continued_by_the_same_file_alone(script: Script, tmp_path: Path) -> None:
    with served(script) as (url, _):
        assert not fetched(tmp_path, url).failed
    assert (tmp_path / "a.bin").read_bytes() == NEW


def test_a_range_that_was_not_asked_for_is_no_file(tmp_path: Path) -> None:
    with served(lambda *_: no_range("")) as (url, asked):
        assert fetched(tmp_path, url).failed == {"a.bin": "http 416"}
    assert asked == [None]
    assert not (tmp_path / "a.bin").exists()


def test_a_file_that_is_begun_again_and_again_is_given_up(tmp_path: Path) -> None:
    with served(lambda *_: (200, OLD, {}, HALF)) as (url, asked):
        assert fetched(tmp_path, url).failed == {"a.bin": "cut"}
    assert set(asked) == {None}
    assert len(asked) < 12


@pytest.mark.parametrize("known", [{}, {"size": len(NEW)}, {"size": len(NEW), "sha256": sha256(NEW).hexdigest()}])
def test_a_server_that_refuses_every_range_gives_the_whole(known: dict[str, Any], tmp_path: Path) -> None:
    with served(lambda _, begin: no_range("") if begin is not None else rest(NEW, None, '"new"')) as (url, _):
        assert not fetched(tmp_path, url, **known).failed
    assert (tmp_path / "a.bin").read_bytes() == NEW


def a_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", b"a" * 5000)
        archive.comment = b"of a test"
    return out.getvalue()


PAGE = b"\n<!DOCTYPE html><html><body>Too many requests</body></html>"
DENIED = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("a.tar", PAGE, "page"),
        ("a.json", DENIED, "page"),
        ("a.zip", a_zip()[:3000], "content"),
        ("a.parquet", b"PAR1" + b"x" * 9000, "content"),
        ("a.json", b"", "content"),
        ("a.zip", a_zip(), None),
        ("a.xml", DENIED, None),
        ("a.html", PAGE, None),
        ("a.parquet", b"PAR1" + b"x" * 9000 + b"PAR1", None),
    ],
)
def test_what_a_server_sends_in_place_of_a_file_is_none(
    name: str, body: bytes, reason: str | None, tmp_path: Path
) -> None:
    """As a success, without a length, and as if it were anything."""
    headers = {"Content-Length": "", "Content-Type": "application/octet-stream"}
    with served(lambda *_: (200, body, headers, len(body))) as (url, _):
        assert fetched(tmp_path, url, name).failed == ({} if reason is None else {name: reason})
    assert (tmp_path / name).exists() == (reason is None)


def test_a_file_that_is_to_be_empty_may_be(tmp_path: Path) -> None:
    with served(lambda *_: (200, b"", {}, 0)) as (url, _):
        assert not fetched(tmp_path, url, size=0).failed
    assert (tmp_path / "a.bin").read_bytes() == b""


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "busy"), (525, "busy"), (599, "busy"), (501, "refused"), (451, "refused"), (410, "gone")]
)
def test_what_a_status_means(status: int, kind: str) -> None:
    assert fault_of_status(status, "http://h/a").kind == kind


def test_sums_vouch_and_nothing_else() -> None:
    assert not Wanted(path="a", url="http://h/a", size=3).is_vouched_for()
    assert Wanted(path="a", url="http://h/a", sha256="0" * 64).is_vouched_for()

"""python -m pytest tests/net/test_tls.py"""

import contextlib
import subprocess
import time

import pytest

from hpcdata.net import Client, Cut, Settings, Unreachable, connecting
from tests.net.loops import ran
from tests.net.misbehaving import Server

BODY = bytes(range(256)) * 1200
SETTINGS = Settings(agent="tests", allows_private=True, read_s=5.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    named = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run([*line.split(), *named], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (path.parent / f"{path.name}.crt").read_bytes())
    return path


@pytest.fixture
def server(certificate, monkeypatch):
    for name in ("https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    connecting.tls.cache_clear()
    with Server(certificate=certificate) as started:
        yield started
    connecting.tls.cache_clear()


def soon(seconds=20.0):
    return time.monotonic() + seconds


@pytest.mark.parametrize("fault", ["", "chunked", "gzip"])
def test_bodies_come_whole_to_threads_and_to_a_loop(server, loop, fault):
    url = server.put("/a", BODY, f"{fault}*" if fault else "")
    with Client(SETTINGS) as client:
        for _ in range(2):
            with client.get(url, until=soon()) as answer:
                assert (answer.status, answer.read(1 << 20)) == (200, BODY)
    with Client(SETTINGS, loop) as client:

        async def body():
            with await client.ask(url, until=soon()) as answer:
                return await answer.body(1 << 20)

        for _ in range(2):  # the second time over connections that were kept
            assert ran(loop, *(body() for _ in range(12))) == [BODY] * 12


def test_a_connection_that_is_interrupted_gives_nothing_that_is_still_encrypted(server):
    url = server.put("/a", BODY[:40_000])
    with Client(SETTINGS) as client, client.get(url, until=soon()) as answer:
        time.sleep(0.1)  # all of it lies in the kernel by then
        answer._connection.interrupt()
        with contextlib.suppress(Cut):
            assert answer.read(1 << 20) == BODY[:40_000]


def test_in_a_loop_one_that_trickles_holds_nobody_up_and_a_cut_body_is_none(server, loop):
    with Client(SETTINGS, loop) as client:

        async def outcome(url, seconds):
            try:
                with await client.ask(url, until=soon(seconds)) as answer:
                    return await answer.body(1 << 20)
            except (Cut, Unreachable) as error:
                return type(error)

        asked = [
            (server.put("/drip", BODY, "drip:0.05"), 1.0),
            (server.put("/cut", BODY, "cut"), 20.0),
            (server.put("/silent", BODY, "silent"), 1.0),
            (server.put("/a", BODY), 20.0),
        ]
        found = ran(loop, *(outcome(*item) for item in asked))
    assert found == [Cut, Cut, Unreachable, BODY]


def test_a_certificate_that_nobody_vouches_for_or_of_another_host_is_refused(server, certificate, monkeypatch):
    url = server.put("/a", BODY)
    with Client(SETTINGS) as client, Server(certificate=certificate, host="127.0.0.2") as other:
        with pytest.raises(Unreachable, match="its certificate is not accepted: IP address mismatch"):
            client.get(other.put("/a", BODY), until=soon())
        monkeypatch.delenv("SSL_CERT_FILE")
        connecting.tls.cache_clear()
        with pytest.raises(Unreachable, match="its certificate is not accepted"):
            client.get(url, until=soon())
        assert not [*server.asked, *other.asked]

"""python -m pytest tests/net/test_client.py"""

import socket
import threading
import time

import pytest

from hpcdata.base.errors import UserError
from hpcdata.net import Client, Cut, Refused, Settings, Unreachable
from tests.net.misbehaving import Server, free_port

BODY = bytes(range(256)) * 40


@pytest.fixture
def server():
    with Server() as started:
        yield started


@pytest.fixture
def client():
    with Client(Settings(agent="tests", allows_private=True, read_s=5.0)) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def soon(seconds=20.0):
    return time.monotonic() + seconds


def fetched(client, url, **options):
    with client.get(url, until=soon(), **options) as answer:
        return answer.status, answer.read(1 << 20)


@pytest.mark.parametrize("fault", ["", "chunked", "gzip", "norange"])
def test_bodies_come_whole(server, client, fault):
    assert fetched(client, server.put("/a", BODY, fault)) == (200, BODY)
    assert server.asked[0].headers["user-agent"] == "tests"


def test_a_range_is_asked_for_and_no_more_than_allowed_is_read(server, client):
    url = server.put("/a", BODY)
    assert fetched(client, url, headers={"Range": "bytes=100-"}) == (206, BODY[100:])
    with client.get(url, until=soon()) as answer:
        assert answer.read(99) == BODY[:100]
    with client.get(url, until=soon(), method="HEAD") as answer:
        assert (answer.read(9), answer.headers["content-length"]) == (b"", str(len(BODY)))


@pytest.mark.parametrize("fault", ["cut", "long", "chunkcut"])
def test_a_body_that_ends_early_is_no_body(server, client, fault):
    url = server.put("/a", BODY, fault)
    with pytest.raises(Cut, match="ends early"):
        fetched(client, url)
    assert fetched(client, url) == (200, BODY)


@pytest.mark.parametrize(("fault", "why"), [("close", "was closed"), ("junk", "no HTTP")])
def test_a_host_without_an_answer_is_unreachable(server, client, fault, why):
    url = server.put("/a", BODY, fault)
    with pytest.raises(Unreachable, match=why):
        fetched(client, url)


def test_what_never_answers_or_trickles_is_interrupted_at_the_deadline(server, client):
    url = server.put("/a", BODY, "silent", "drip:5")
    with pytest.raises(Unreachable, match="no answer in time"):
        client.get(url, until=time.monotonic() + 0.2)
    with client.get(url, until=time.monotonic() + 0.8) as answer, pytest.raises(Cut, match="no answer in time"):
        answer.read(1 << 20)


def test_a_body_that_ends_with_its_connection_is_not_taken_for_whole_when_it_is_interrupted(client):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_begins_to_say, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with client.get(url, until=time.monotonic() + 0.8) as answer, pytest.raises(Cut, match="no answer in time"):
            answer.read(1 << 20)


def _begins_to_say(listening):
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of a picture")
        while connection.recv(1 << 10):
            pass


def test_nobody_listens(client):
    with pytest.raises(Unreachable, match="refused"):
        client.get(f"http://127.0.0.1:{free_port()}/", until=soon())


def test_a_connection_is_kept_and_opened_again_where_the_host_closed_it(server, client):
    connections = set()
    accept = server._server.process_request
    server._server.process_request = lambda request, address: (connections.add(address), accept(request, address))
    url = server.put("/a", BODY)
    assert [fetched(client, url) for _ in range(3)] == [(200, BODY)] * 3
    assert len(connections) == 1
    server.put("/a", BODY, "close")
    assert fetched(client, url) == (200, BODY)
    assert len(connections) == 2


def test_redirects_are_followed_and_an_endless_one_is_refused(server, client):
    server.put("/b", BODY)
    assert fetched(client, server.put("/a", b"", "to:/b")) == (200, BODY)
    with pytest.raises(Refused, match="more than 5 redirects"):
        client.get(server.put("/c", b"", "loop*"), until=soon())
    assert server.times("/c") == 6
    with pytest.raises(Refused, match="no http or https: file"):
        client.get(server.put("/d", b"", "to:file:///etc/passwd"), until=soon())


def test_a_password_goes_to_the_first_host_only(server, client):
    other = server.put("/b", BODY).replace("127.0.0.1", "localhost")
    for path, target in (("/a", "/b"), ("/c", other)):
        url = server.put(path, b"", f"to:{target}")
        assert fetched(client, url, headers={"Authorization": "Bearer secret"}) == (200, BODY)
    assert [item.headers.get("authorization") for item in server.asked] == ["Bearer secret"] * 3 + [None]


def test_private_hosts_are_not_asked(server):
    with Client(Settings(agent="tests")) as client:
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"):
            with pytest.raises(Refused, match="is private"):
                client.get(f"http://{host}:{server.port}/", until=soon())
    assert server.asked == []


def test_a_redirect_to_a_private_host_is_not_followed(server, monkeypatch):
    real = socket.getaddrinfo

    def resolved(host, port, **kwargs):
        return real("127.0.0.1", port, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr("hpcdata.net.addresses.is_public", lambda address: not monkeypatched)
    monkeypatched: list[bool] = []
    url = server.put("/a", b"", "to:http://metadata.internal/").replace("127.0.0.1", "public.example")
    with Client(Settings(agent="tests")) as client:
        exchange = client._exchange

        async def asked(*args):
            head = await exchange(*args)
            monkeypatched.append(True)
            return head

        client._exchange = asked
        with pytest.raises(Refused, match="is private"):
            client.get(url, until=soon())
    assert [item.path for item in server.asked] == ["/a"]


def test_the_proxy_of_the_environment_is_asked(server, client, monkeypatch):
    server.put("/a", BODY)
    monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{server.port}")
    assert fetched(client, "http://far.example/a") == (200, BODY)
    assert server.asked[0].headers["host"] == "far.example"
    assert server.asked[0].headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetched(client, server.url("/a")) == (200, BODY)
    assert "proxy-authorization" not in server.asked[1].headers
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(UserError, match="socks5"):
        client.get("http://further.example/a", until=soon())


def test_many_threads_share_a_client(server, client):
    url, found = server.put("/a", BODY), []

    def ask():
        for _ in range(10):
            found.append(fetched(client, url))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(200, BODY)] * 80

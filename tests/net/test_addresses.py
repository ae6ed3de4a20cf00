"""python -m pytest tests/net/test_addresses.py"""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.net import addresses
from hpcdata.net.errors import Refused, Unreachable
from tests.selection import examples


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://a.org", "http://a.org/"),
        (" HTTPS://A.org:443/x y?q=1 2#part ", "https://a.org/x%20y?q=1%202"),
        ("http://a.org:8080/%20/ä", "http://a.org:8080/%20/%C3%A4"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://user:secret@a.org/", "http://a.org/"),
        ("http://[2606:4700::1]:81/", "http://[2606:4700::1]:81/"),
    ],
)
def test_urls_are_asked_for_as_browsers_do(url, asked):
    assert addresses.parse(url).url == asked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "no http or https: file"),
        ("ftp://a.org/", "no http or https: ftp"),
        ("a.jpg", "no scheme"),
        ("", "no scheme"),
        ("http://", "names no host"),
        ("http://a.org:0/", "names no host"),
        ("http://a.org:99999/", "cannot be read"),
        ("http://a.org/\r\nX: y", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://a_b$.org/", "names no host"),
        ("http://a.org/" + "x" * 9000, "9013 characters"),
    ],
)
def test_what_is_no_url_is_refused(url, why):
    with pytest.raises(Refused, match=why):
        addresses.parse(url)


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://a.org/", "http://a.org/?"]))
@settings(max_examples=examples(100), deadline=None)
def test_any_text_is_a_url_or_refused_and_a_target_has_no_controls(text, before):
    try:
        found = addresses.parse(before + text)
    except Refused:
        return
    assert found.url.isascii()
    assert all(" " < char < "\x7f" for char in found.url)
    assert addresses.parse(found.url) == found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@a.org/x?sig=secret&t=1", "https://a.org/x?..."),
        ("https://a.org/x\x1b[31m", "https://a.org/x?[31m"),
        ("https://a.org", "https://a.org"),
        ("a.jpg?x=1", "a.jpg"),
    ],
)
def test_messages_show_no_password_and_no_query(url, shown):
    assert addresses.shown(url) == shown


PRIVATE = (
    "127.0.0.1 10.0.0.8 172.16.3.4 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 ::1 :: "
    "fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.1.2.3 64:ff9b::7f00:1 2002:7f00:1::"
)


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_addresses(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert addresses.is_public(address)


def test_only_the_public_addresses_of_a_host_are_connected_to(monkeypatch):
    found = []

    def resolved(*args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    found[:] = ["10.0.0.1", "8.8.8.8"]
    assert addresses.resolve("a.org", 80, allows_private=False) == [(socket.AF_INET, ("8.8.8.8", 80))]
    found[:] = ["10.0.0.1"]
    with pytest.raises(Refused, match="its host is private"):
        addresses.resolve("a.org", 80, allows_private=False)
    assert addresses.resolve("a.org", 80, allows_private=True) == [(socket.AF_INET, ("10.0.0.1", 80))]
    found[:] = []
    with pytest.raises(Unreachable):
        addresses.resolve("a.org", 80, allows_private=False)


_PARTS = st.sampled_from(
    ["http://", "https://", "a.org", "A", ":80", ":8080", "/", "?", "#", "%20", "é", " ", "~", "[", "x=1&y", "@", "\\"]
)


@given(st.lists(_PARTS, max_size=9).map("".join))
@settings(max_examples=examples(300), deadline=None)
def test_usual_urls_are_read_faster_and_not_otherwise(url):
    def read(function):
        try:
            return function(url.strip())
        except Refused as error:
            return str(error)

    assert read(addresses.parse) == read(addresses._parsed)

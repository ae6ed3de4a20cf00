"""URLs as they are asked for and as they may be shown, and which hosts are public.

A list of URLs may be hostile: one of `http://169.254.169.254/` would have a cluster's node ask its own cloud for
secrets. So a host is resolved first, and only those of its addresses are connected to that all the world can reach.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from hpcdata.net.errors import Refused, Unreachable

MOST_OF_A_URL = 8000
PORTS = {"http": 80, "https": 443}
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_CONTROLS = re.compile(r"[\x00-\x20\x7f]")
_USUAL = re.compile(
    r"(https?)://([a-z0-9][a-z0-9.-]{0,252})(?::([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
    r"((?:/[\w.!$%&'()*+,/:;=@~-]*)?(?:\?[\w.!$%&'()*+,/:;=?@~-]+)?)",
    re.ASCII,
)
"""URLs that need no escapes, and name their host in lower case."""
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16")))
"""Of IPv6, where an IPv4 address stands in: NAT64, 6to4."""
_MOST_SHOWN = 200
Place = tuple[int, tuple[Any, ...]]
"""Family and address, as a socket wants them."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """A URL taken apart. `target` is its path and query, as a request has them."""

    scheme: str
    host: str
    """In lower case and ASCII, IPv6 without brackets."""
    port: int
    target: str

    @functools.cached_property
    def name(self) -> str:
        """Host and port as a request names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}{self.target}"


@functools.lru_cache(1024)
def parse(url: str) -> Address:
    """Raises Refused for what is no http or https URL. Spaces and other alphabets are escaped, as browsers do."""
    url = url.strip()
    if len(url) > MOST_OF_A_URL:
        raise Refused(f"a URL of {len(url)} characters, the limit is {MOST_OF_A_URL}")
    if usual := _USUAL.fullmatch(url):
        scheme, host, number, target = usual.groups()
        target = target if target[:1] == "/" else f"/{target}"
        return Address(scheme=scheme, host=host, port=int(number) if number else PORTS[scheme], target=target)
    return _parsed(url)


def _parsed(url: str) -> Address:
    try:
        parts = urlsplit(_CONTROLS.sub(lambda match: "%20" if match[0] == " " else _no(match[0]), url))
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:  # also of its port, and of idna
        raise Refused("its URL cannot be read") from None
    if scheme not in PORTS:
        raise Refused(f"its URL is no http or https: {scheme[:20] or 'it has no scheme'}")
    if not host or not re.fullmatch(r"[a-z0-9._:-]{1,253}", host) or port == 0:
        raise Refused("its URL names no host")
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Address(scheme=scheme, host=host, port=port or PORTS[scheme], target=target)


def joined(base: Address, location: str) -> Address:
    """Where a redirect leads. Raises Refused."""
    try:
        return parse(urljoin(base.url, location.strip()))
    except ValueError:
        raise Refused("a redirect leads to what is no URL") from None


def shown(url: str) -> str:
    """A URL for messages: without a password, and without the values of its query, which may be signatures."""
    head, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    path, mark, _ = path.partition("?")
    text = (
        f"{head}://{place.rpartition('@')[2]}{slash}{path}{'?...' if mark else ''}" if rest else url.partition("?")[0]
    )
    return "".join(char if char.isprintable() else "?" for char in text)[:_MOST_SHOWN]


def is_public(address: str) -> bool:
    """Whether all the world can reach an IP address: neither private, loopback, link-local, nor reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        for number, network in enumerate(_EMBEDDING):
            if ip in network:
                value = int(ip) if number == 0 else int(ip) >> 80
                return is_public(str(ipaddress.IPv4Address(value & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int, *, allows_private: bool) -> list[Place]:
    """(family, socket address) of a host, in the order of the system.

    Raises Unreachable where it has none, Refused where all are private.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # what the system says of it differs from machine to machine
        raise Unreachable("its host has no address") from None
    families = (socket.AF_INET, socket.AF_INET6)
    addresses: list[Place] = [(family, place) for family, _, _, _, place in found if family in families]
    public = [item for item in addresses if allows_private or is_public(str(item[1][0]))]
    if addresses and not public:
        raise Refused("its host is private, and no address of the internet")
    if not public:
        raise Unreachable("its host has no address")
    return public


def _no(character: str) -> str:
    raise ValueError(f"character {ord(character)}")

"""The proxy of a URL, by http_proxy, https_proxy, all_proxy and no_proxy, as curl and others read them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from hpcdata.base.errors import UserError
from hpcdata.net.addresses import Address


@dataclass(frozen=True, kw_only=True)
class Proxy:
    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """With the credentials of its URL, if it has some; never shown."""


def find(address: Address) -> Proxy | None:
    """Raises UserError for a proxy that is not spoken to by HTTP."""
    found = getproxies()
    url = found.get(address.scheme) or found.get("all")
    if not url or proxy_bypass(f"{address.host}:{address.port}"):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UserError(f"the proxy for {address.scheme} is of {parts.scheme}, expected http://HOST:PORT")
    headers = {}
    if parts.username:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(words.encode()).decode()
    return Proxy(host=parts.hostname, port=parts.port or 3128, headers=headers)

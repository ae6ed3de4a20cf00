"""One connection: resolved, checked, connected, with a deadline that also holds for what trickles."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import ssl
import threading
import time

from hpcdata.net.addresses import Address, resolve
from hpcdata.net.errors import Unreachable
from hpcdata.net.proxies import Proxy

_REAP_EVERY_S = 0.25


class Connection(http.client.HTTPConnection):
    """To a host or its proxy, whose socket stays known until it is closed."""

    def __init__(self, address: Address, proxy: Proxy | None, *, connect_s: float, read_s: float, allows: bool) -> None:
        super().__init__(address.host, address.port)
        self.address, self.proxy = address, proxy
        self.socket: socket.socket | None = None
        self.num_answers = 0
        self.idle_since = 0.0
        self._connect_s, self._read_s, self._allows = connect_s, read_s, allows
        self._has_tunnel = proxy is not None and address.scheme == "https"
        if proxy is not None and self._has_tunnel:
            self.set_tunnel(address.host, address.port, proxy.headers)

    def connect(self) -> None:
        """Raises Unreachable or Refused."""
        place, allows = (self.proxy, True) if self.proxy else (self.address, self._allows)
        last = "no address"
        for family, address in resolve(place.host, place.port, allows_private=allows):
            self.sock = self.socket = socket.socket(family, socket.SOCK_STREAM)
            try:
                self.sock.settimeout(self._connect_s)
                self.sock.connect(address)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._has_tunnel:
                    self._tunnel()  # type: ignore[attr-defined]
                if self.address.scheme == "https":
                    self.sock = self.socket = tls().wrap_socket(self.sock, server_hostname=self.address.host)
                self.sock.settimeout(self._read_s)
            except (OSError, http.client.HTTPException) as error:
                last = _why(error)
                self.end()
                continue
            return
        raise Unreachable(f"no connection: {last}")

    def end(self) -> None:
        """Closes it, whatever state it is in."""
        with contextlib.suppress(OSError):
            self.close()
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()

    def interrupt(self) -> None:
        """From another thread: whoever waits for bytes of it waits no longer."""
        if (used := self.socket) is not None:
            with contextlib.suppress(OSError):
                used.shutdown(socket.SHUT_RDWR)


@functools.cache
def tls() -> ssl.SSLContext:
    """Certificates are checked: by SSL_CERT_FILE, REQUESTS_CA_BUNDLE, the system's, or those of certifi."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") if not os.environ.get("SSL_CERT_FILE") else None
    context = ssl.create_default_context(cafile=bundle if bundle and os.path.isfile(bundle) else None)
    paths = ssl.get_default_verify_paths()
    if not context.cert_store_stats()["x509_ca"] and not (paths.cafile or paths.capath):
        with contextlib.suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


class Deadlines:
    """Interrupts connections whose time is over. One thread for all of them, which ends with `close`."""

    def __init__(self) -> None:
        self._until: dict[Connection, float] = {}
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, connection: Connection, until: float) -> None:
        with self._lock:
            self._until[connection] = until
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()

    def stop(self, connection: Connection) -> None:
        with self._lock:
            self._until.pop(connection, None)

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(_REAP_EVERY_S):
            now = time.monotonic()
            with self._lock:
                over = [connection for connection, until in self._until.items() if until <= now]
            for connection in over:
                connection.interrupt()


def _why(error: Exception) -> str:
    """In the same words on every machine, as far as it can be told."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return type(error).__name__

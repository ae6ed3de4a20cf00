"""One connection: resolved, checked, connected, with a deadline that also holds for what trickles."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import struct
import threading
import time

from hpcdata.net.addresses import Address, resolve
from hpcdata.net.errors import Unreachable
from hpcdata.net.loop import Loop, drive
from hpcdata.net.proxies import Proxy
from hpcdata.net.wire import NoHTTP, Wire, request

_REAP_EVERY_S = 0.25


class Connection:
    """To a host or its proxy, whose socket stays known until it is closed."""

    def __init__(
        self,
        address: Address,
        proxy: Proxy | None,
        loop: Loop | None,
        *,
        connect_s: float,
        read_s: float,
        allows: bool,
    ) -> None:
        """loop: waits for it once it is connected; None: it blocks whoever uses it."""
        self.address, self.proxy, self._loop = address, proxy, loop
        self.wire: Wire | None = None
        self.num_answers = 0
        self.idle_since = 0.0
        self._socket: socket.socket | None = None
        self._connect_s, self._read_s, self._allows = connect_s, read_s, allows

    def connect(self) -> Wire:
        """Raises Unreachable or Refused."""
        place, allows = (self.proxy, True) if self.proxy else (self.address, self._allows)
        last = "no address"
        for family, address in resolve(place.host, place.port, allows_private=allows):
            sock = self._socket = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._connect_s)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.address.scheme == "https":
                    if self.proxy is not None:
                        self._open_tunnel(Wire(sock), self.proxy)
                    sock = self._socket = tls().wrap_socket(sock, server_hostname=self.address.host)
                self._limit_waits(sock)
            except (OSError, NoHTTP) as error:
                last = _why(error)
                self.end()
                continue
            self.wire = Wire(sock, self._loop, read_s=self._read_s)
            return self.wire
        raise Unreachable(f"no connection: {last}")

    def _open_tunnel(self, wire: Wire, proxy: Proxy) -> None:
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        place = f"{host}:{self.address.port}"
        head = drive(wire.ask(request("CONNECT", place, {"Host": place, **proxy.headers}), has_body=False))
        if head.status // 100 != 2:
            raise OSError(f"its proxy says HTTP {head.status}")

    def _limit_waits(self, sock: socket.socket) -> None:
        """As `settimeout` does, where there can be, by the kernel alone: Python's own looks before each call."""
        if self._loop is not None:
            sock.settimeout(0)
        elif isinstance(sock, ssl.SSLSocket):
            sock.settimeout(self._read_s)
        else:
            sock.settimeout(None)
            limit = struct.pack("@ll", int(self._read_s), int(self._read_s % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def end(self) -> None:
        """Closes it, whatever state it is in."""
        self.wire = None
        if self._socket is not None:
            if self._loop is not None:
                self._loop.forget(self._socket)
            with contextlib.suppress(OSError):
                self._socket.close()

    def interrupt(self) -> None:
        """From another thread: whoever waits for bytes of it waits no longer."""
        if (used := self._socket) is not None:
            with contextlib.suppress(OSError):  # not TLS's own, after which its reader would be given what is encrypted
                socket.socket.shutdown(used, socket.SHUT_RDWR)


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
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(_REAP_EVERY_S):
            now = time.monotonic()
            with self._lock:
                over = [connection for connection, until in self._until.items() if until <= now]
            for connection in over:
                connection.interrupt()


def _why(error: OSError | NoHTTP) -> str:
    """In the same words on every machine, as far as it can be told."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if isinstance(error, NoHTTP):
        return "its proxy speaks no HTTP"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    return (error.strerror or str(error) or type(error).__name__).lower().replace("http ", "HTTP ")

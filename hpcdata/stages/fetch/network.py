"""Whether it is this machine that reaches nobody: then no record is rejected for it.

A host that cannot be reached is that host's fault as long as any other one answers. Where none has answered since, some
hosts of the run's own list are connected to, and if none of them can be either, the task stops (`MachineFault`).
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path

from hpcdata.net import Client, NetError
from hpcdata.net.addresses import parse
from hpcdata.runs.plan import Plan
from hpcdata.runs.witnesses import MachineFault
from hpcdata.samples import BadSample
from hpcdata.sources.url_lists.fields import urls_of

MOST_HOSTS = 16
_FIRST_ROWS = 256
_PROBE_S = 15.0


class Network:
    def __init__(self, client: Client, witnesses: Sequence[str]) -> None:
        """witnesses: URLs of hosts that could be reached."""
        self._client, self._witnesses = client, witnesses
        self._heard, self._probing = -1.0, threading.Lock()

    def hear(self) -> None:
        """Some host has answered just now."""
        self._heard = time.monotonic()

    def require(self, since: float) -> None:
        """Raises MachineFault unless a host has answered since then, or one can be reached now."""
        with self._probing:  # whoever waits here may find that another has heard something
            if self._heard >= since or self._reaches_any():
                return
        raise MachineFault(
            f"none of {len(self._witnesses)} hosts of the list can be reached from {socket.gethostname()}: is its "
            "network down, or a proxy missing? Nothing is rejected for it. If these hosts are gone for good, resume "
            "with fetch.on_unreachable=reject"
        )

    def _reaches_any(self) -> bool:
        threads = ThreadPoolExecutor(max(1, len(self._witnesses)), thread_name_prefix="probe")
        try:
            for future in as_completed([threads.submit(self._reaches, url) for url in self._witnesses]):
                if future.result():
                    self.hear()
                    return True
            return False
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _reaches(self, url: str) -> bool:
        try:
            self._client.reach(url, until=time.monotonic() + _PROBE_S)
        except NetError:
            return False
        return True


def witnesses_of(plan: Plan, root: Path) -> list[str]:
    """A URL of each of some hosts: of the first rows of the listings, which are in no order of hosts."""
    hosts: dict[str, str] = {}
    for source in plan.inputs:
        try:
            with open(root / source.file.path, "rb") as listing:
                lines = list(islice(listing, _FIRST_ROWS))
        except OSError:
            continue
        for line in lines:
            try:
                record = json.loads(line)
                for url in urls_of(record, plan.config.fetch.url_field) or ():
                    address = parse(url)
                    hosts.setdefault(address.name, f"{address.scheme}://{address.name}/")
            except (ValueError, RecursionError, AttributeError, BadSample, NetError):
                continue
            if len(hosts) >= MOST_HOSTS:
                return list(hosts.values())[:MOST_HOSTS]
    return list(hosts.values())

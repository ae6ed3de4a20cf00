"""HTTP: what is asked of other hosts, with limits, deadlines, and no way into this site's own network.

May use: base. It stands on the sockets of the standard library: `huggingface_hub` brings another client with each of
its major versions, and `http.client` and asyncio take several times the CPU for small files.

    errors      what can go wrong, told apart by who is at fault
    addresses   URLs as they are asked for and as they may be shown; which hosts are public
    proxies     the proxy of a URL, by the usual variables
    loop        many requests in one thread: coroutines that wait for sockets, times and threads
    wire        HTTP/1.1 on a socket: a request out, the head and body of its answer in
    connecting  one connection: resolved, checked, connected, with a deadline
    client      GET and HEAD with kept connections and few redirects
    limits      how often a host is asked, and how long it is left alone
"""

from hpcdata.net.client import Answer, Client, Settings
from hpcdata.net.errors import Cut, NetError, Refused, Unreachable
from hpcdata.net.limits import HostLimits, retry_after
from hpcdata.net.loop import Loop, Turn

__all__ = [
    "Answer",
    "Client",
    "Cut",
    "HostLimits",
    "Loop",
    "NetError",
    "Refused",
    "Settings",
    "Turn",
    "Unreachable",
    "retry_after",
]

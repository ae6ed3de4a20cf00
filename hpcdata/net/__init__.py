"""HTTP: what is asked of other hosts, with limits, deadlines, and no way into this site's own network.

May use: base. It stands on `http.client` of the standard library: `huggingface_hub` brings another client with each of
its major versions.

    errors      what can go wrong, told apart by who is at fault
    addresses   URLs as they are asked for and as they may be shown; which hosts are public
    proxies     the proxy of a URL, by the usual variables
    connecting  one connection: resolved, checked, connected, with a deadline
    client      GET and HEAD with kept connections and few redirects
    limits      how often a host is asked, and how long it is left alone
"""

from hpcdata.net.client import Answer, Client, Settings
from hpcdata.net.errors import Cut, NetError, Refused, Unreachable
from hpcdata.net.limits import HostLimits, retry_after

__all__ = ["Answer", "Client", "Cut", "HostLimits", "NetError", "Refused", "Settings", "Unreachable", "retry_after"]

"""What can go wrong between a request and the last byte of its answer. Messages hold no query, password or token."""

from __future__ import annotations


class NetError(Exception):
    """Of one request. An HTTP status, whatever it is, is none: it is an answer."""


class Refused(NetError):
    """It is not asked for, now or later: an address that is none, is private, or leads from redirect to redirect."""


class Unreachable(NetError):
    """No answer came: no such name, no connection, no TLS, silence. The host may be at fault, or this machine."""


class Cut(NetError):
    """An answer began, and its body did not come whole, or not in time."""

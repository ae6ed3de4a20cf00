"""What an answer says of a URL: its picture, a reject for good, or that it may be asked for again.

    404, 410                                   url_gone
    401, 403, 451, other 4xx, other answers    url_refused
    a page, or anything that is no picture     url_refused
    X-Robots-Tag: noai, noindex ...            url_refused, unless fetch.robots=ignore
    408, 425, 429, 5xx, a body cut short       asked for again, then url_failed

An error page has status 200 on many hosts: so what is no picture by its first bytes is never kept as one.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass

from hpcdata.base import digest
from hpcdata.config.schema import RunConfig
from hpcdata.media.kinds import BEGINNING_BYTES, find_kind, is_picture
from hpcdata.net import Answer, Cut
from hpcdata.samples import BadSample, Reason

GONE = (404, 410)
BUSY = (407, 408, 425, 429)
"""407 says a proxy on the way, of itself."""
NO_ROBOTS = ("noai", "noimageai", "noindex", "noimageindex")
_MOST_OF_A_PAGE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is taken for a picture."""

    max_bytes: int
    max_pixels: int | None
    """None: pictures are not decoded."""
    max_aspect: float | None
    respects_robots: bool

    @classmethod
    def of(cls, config: RunConfig) -> Rules:
        fetch = config.fetch
        return cls(
            max_bytes=fetch.max_bytes,
            max_pixels=config.data.max_image_pixels if fetch.decode else None,
            max_aspect=config.data.max_aspect,
            respects_robots=fetch.robots == "respect",
        )


class Busy(Exception):
    """The host may give the picture later."""


async def body_of(answer: Answer, rules: Rules) -> bytes:
    """The bytes that came. Raises BadSample, Busy, or Cut."""
    status = answer.status
    if status != 200 and answer.size is not None and answer.size <= _MOST_OF_A_PAGE:
        with contextlib.suppress(Cut):
            await answer.body(_MOST_OF_A_PAGE)  # so that its connection is kept
    if status in GONE:
        raise BadSample(Reason.URL_GONE, f"HTTP {status}")
    if status in BUSY or status >= 500:
        raise Busy(f"HTTP {status}")
    if status != 200:
        raise BadSample(Reason.URL_REFUSED, f"HTTP {status}")
    if rules.respects_robots and "x-robots-tag" in answer.headers:
        said = _directives(answer.headers["x-robots-tag"].lower())
        if found := [word for word in NO_ROBOTS if word in said]:
            raise BadSample(Reason.URL_REFUSED, f"its host says {found[0]} (X-Robots-Tag)")
    if answer.size is not None and answer.size > rules.max_bytes:
        raise BadSample(Reason.OVERSIZED_IMAGE, f"{answer.size} bytes, the limit is {rules.max_bytes}")
    data = await answer.body(rules.max_bytes)
    if len(data) > rules.max_bytes:
        raise BadSample(Reason.OVERSIZED_IMAGE, f"more than {rules.max_bytes} bytes, the limit")
    return data


def require_picture(data: bytes, kind: str) -> None:
    """Raises BadSample for what is none by its first bytes. kind: the Content-Type that came with it."""
    if not data:
        raise BadSample(Reason.EMPTY_IMAGE, "0 bytes")
    beginning = data[:BEGINNING_BYTES]
    if not is_picture(beginning):
        what = find_kind(beginning) or _printable(kind) or "unknown bytes"
        raise BadSample(Reason.URL_REFUSED, f"no picture came, but {what}")


def is_plain_jpeg(data: bytes, rules: Rules) -> bool:
    """Whether `require_decodable` raises nothing, seen at once."""
    from hpcdata.media import pixels

    return pixels.is_plain_jpeg(data, max_pixels=rules.max_pixels or 0, max_aspect=rules.max_aspect)


def require_decodable(data: bytes, rules: Rules) -> None:
    """Raises BadSample for a picture that nobody can open."""
    from hpcdata.media import pixels

    pixels.require_decodable(data, max_pixels=rules.max_pixels or 0, max_aspect=rules.max_aspect)


def sha256_of(data: bytes) -> str:
    hasher = hashlib.sha256()
    digest.feed(hasher, data)
    return hasher.hexdigest()


def _directives(words: str) -> set[str]:
    """Those for all robots: one for a named robot has its name before it."""
    return {word.strip() for word in words.split(",")}


def _printable(kind: str) -> str:
    return "".join(char for char in kind.partition(";")[0].strip()[:60] if char.isascii() and char.isprintable())

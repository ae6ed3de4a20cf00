"""The structure of JSON in chunks of any size: brackets and commas that stand outside of strings. Nothing is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator

_REST_OF_STRING = rb'[^"\\]*(?:\\.[^"\\]*)*("?)'
_REST = re.compile(_REST_OF_STRING, re.DOTALL)


class Marks:
    """Chunk after chunk. It remembers whether a string is open."""

    def __init__(self, which: bytes) -> None:
        """which: `[]{}` or `[]{},`."""
        self._pattern = re.compile(b"[" + re.escape(which) + b']|"' + _REST_OF_STRING, re.DOTALL)
        self._is_escaped = False
        self.is_string = False

    def of(self, chunk: bytes) -> Iterator[re.Match[bytes]]:
        """The marks of the next chunk, in order."""
        position = 0
        if self.is_string and chunk:
            match = _REST.match(chunk, int(self._is_escaped))
            assert match is not None
            position = self._in_string(match, chunk)
        for match in self._pattern.finditer(chunk, position):
            if match.lastindex is None:  # no string
                yield match
            elif not match[1]:
                self._in_string(match, chunk)
                return

    def _in_string(self, match: re.Match[bytes], chunk: bytes) -> int:
        """Where the string ends, as far as it is here."""
        self.is_string = not match[1]
        self._is_escaped = match.end() < len(chunk)  # a backslash, whose letter is in the next chunk
        return match.end() if match[1] else len(chunk)

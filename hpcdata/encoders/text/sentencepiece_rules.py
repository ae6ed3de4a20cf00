"""What a SentencePiece model says and its library does not tell: how it replaces characters and finds pieces."""

from __future__ import annotations

from collections.abc import Iterator

_BPE = 2


def charsmap(model: bytes) -> bytes:
    """What a SentencePiece model replaces before anything else: ModelProto.normalizer_spec.precompiled_charsmap."""
    return b"".join(rules for spec in _messages(model, 3) for rules in _messages(spec, 2))


def merges_pairs(model: bytes) -> bool:
    """Whether it is byte pair encoding: ModelProto.trainer_spec.model_type is BPE."""
    return [*_fields(b"".join(_messages(model, 2)), 3)] == [_BPE]


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The strings, bytes and messages in a field of a protocol buffer."""
    return (value for value in _fields(data, wanted) if isinstance(value, bytes))


def _fields(data: bytes, wanted: int) -> Iterator[bytes | int]:
    """The values of a field of a protocol buffer: numbers, or strings, bytes and messages."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            if field == wanted:
                yield value
        elif wire == 2:
            size, at = _varint(data, at)
            if field == wanted:
                yield data[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} in a protocol buffer")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(a number of 7 bits a byte, where it ends)."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at

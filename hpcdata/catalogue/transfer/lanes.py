"""Where the bytes of one connection go: blocks of a part, one after the other."""

from __future__ import annotations

from typing import Protocol

from hpcdata.catalogue.transfer.blocks import Block


class Taker(Protocol):
    """Who gives empty blocks out and takes those that are filled."""

    def new_block(self, begin: int, end: int | None) -> Block: ...

    def filled(self, block: Block) -> None: ...

    def unused(self, block: Block) -> None: ...

    def closed(self, lane: BlockLane) -> None: ...


class BlockLane:
    """Of one connection: the bytes [begin, end) of a part, one block after the other."""

    def __init__(self, part: Taker, begin: int, end: int | None) -> None:
        self.begin, self.end, self.place = begin, end, begin
        self._part = part
        self._block: Block | None = None

    def room(self) -> memoryview:
        if self._block is None:
            self._block = self._part.new_block(self.place, self.end)
        return self._block.data[self._block.filled : self._block.capacity]

    def received(self, count: int) -> None:
        assert self._block is not None
        self._block.filled += count
        self.place += count
        if self._block.filled == self._block.capacity:
            self._hand_over(self._block)

    def close(self) -> None:
        if self._block is not None:
            self._hand_over(self._block)
        self._part.closed(self)

    def _hand_over(self, block: Block) -> None:
        self._block = None
        if block.filled:
            self._part.filled(block)
        else:
            self._part.unused(block)

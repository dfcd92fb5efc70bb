"""An object as a file to read: stretches of it come as they are asked for, and stay for a while."""

import errno
from collections import OrderedDict
from collections.abc import Callable
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import Any

from tagger.errors import AccessError

READ_BLOCK_BYTES = 32 << 10
"""What is fetched at once where reading begins: FFmpeg asks for as much."""

MAX_BLOCKS_AHEAD = 32
"""So many at once where reading goes on and on."""

MAX_CACHED_BYTES = 16 << 20
"""Bytes of a file that are kept: decoders come back to where they were."""

FetchRange = Callable[[int, int], bytes]
"""Returns the bytes from one place to another."""


class RangedFile(RawIOBase):
    """Reads by blocks. failure: why a block could not be fetched, for who reads may not tell."""

    def __init__(self, name: str, size: int, fetch: FetchRange) -> None:
        self.name = name
        self.size = size
        self.fetch = fetch
        self.failure = ""
        self.position = 0
        self.blocks: OrderedDict[int, bytes] = OrderedDict()
        self.ahead = 1
        self.next = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        start = {SEEK_SET: 0, SEEK_CUR: self.position, SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a place before the start")
        self.position = start + offset
        return self.position

    def readinto(self, target: Any) -> int:
        """Fill the buffer as far as its block goes. Raises OSError where that cannot be fetched."""
        view = memoryview(target).cast("B")
        if self.position >= self.size or not view:
            return 0
        number, start = divmod(self.position, READ_BLOCK_BYTES)
        block = self._block(number)
        stretch = block[start : start + len(view)]
        view[: len(stretch)] = stretch
        self.position += len(stretch)
        return len(stretch)

    def _block(self, number: int) -> bytes:
        if number not in self.blocks:
            self._fetch(number)
        self.blocks.move_to_end(number)
        return self.blocks[number]

    def _fetch(self, number: int) -> None:
        """Fetch a block, and the more behind it, the longer reading has gone straight on."""
        self.ahead = min(self.ahead * 2, MAX_BLOCKS_AHEAD) if number == self.next else 1
        start, stop = (
            number * READ_BLOCK_BYTES,
            min((number + self.ahead) * READ_BLOCK_BYTES, self.size),
        )
        try:
            content = self.fetch(start, stop)
        except AccessError as error:
            self.failure = str(error)
            raise OSError(errno.EIO, self.failure) from error
        if len(content) != stop - start:
            wanted = stop - start
            self.failure = f"cannot be read: its server sent {len(content)} bytes for {wanted}"
            raise OSError(errno.EIO, self.failure)
        for at in range(0, len(content), READ_BLOCK_BYTES):
            self.blocks[number + at // READ_BLOCK_BYTES] = content[at : at + READ_BLOCK_BYTES]
        self.next = number + self.ahead
        while len(self.blocks) * READ_BLOCK_BYTES > MAX_CACHED_BYTES:
            self.blocks.popitem(last=False)

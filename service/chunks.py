"""The chunks of a request's content: where they end, which httptools tells only after it may have read on."""

from typing import Final

from service.problem import Problem

FREE_FRAMING: Final = 12
"""Bytes of a chunk's framing that aren't counted: its size in eight digits, and two line breaks."""


class Chunks:
    """Goes from one chunk's size to the next, over what is in them, and then over the trailer's lines.

    It need not be strict, because httptools is, and both must find the same end.
    """

    __slots__ = ("_in_trailer", "_left", "_line", "framing", "is_over")

    def __init__(self) -> None:
        self._left = 0
        """Bytes that are left of a chunk, with the line break behind it."""
        self._line = b""
        """The beginning of a line whose end hasn't come yet."""
        self._in_trailer = False
        self.framing = 0
        """Bytes of extensions and of the trailer so far."""
        self.is_over = False

    @property
    def size(self) -> int:
        """Return how many bytes count as a part of the head."""
        return self.framing + len(self._line)

    def end(self, data: bytes | bytearray, start: int, size: int) -> int:
        """Return where the content ends, which begins or goes on at ``start``, or ``size`` where it doesn't yet.

        Raises Problem for a size that is none.
        """
        position = start + self._left
        while position < size:
            found = data.find(b"\n", position, size)
            if found < 0:
                break
            line = self._line + data[position : found + 1]
            self._line = b""
            position = found + 1
            if self._in_trailer:
                self.framing += len(line)
                if line == b"\r\n":
                    self.is_over = True
                    return position
            else:
                position += self._begin(line)
        self._left = max(0, position - size)
        self._line += data[position:size]
        return size

    def _begin(self, line: bytes) -> int:
        """Return how many bytes a chunk with this first line takes behind it."""
        try:
            length = int(line[: line.find(b";")] if b";" in line else line, 16)
        except ValueError:
            length = -1
        if length < 0:
            raise Problem(400, "this is not HTTP/1.1: a chunk begins without its size")
        self.framing += max(0, len(line) + 2 - FREE_FRAMING)  # never less than it was, however small the chunk
        self._in_trailer = length == 0
        return 0 if self._in_trailer else length + 2

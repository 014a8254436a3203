"""Compressed files whose damage shows as that of gzip and xz does: as EOFError."""

import bz2
import io
from typing import Any, BinaryIO

from bert.errors import UserError


class Bz2File(io.RawIOBase):
    """A bz2 file whose broken bytes raise EOFError; by itself it speaks of them as of a disk that fails."""

    def __init__(self, raw: BinaryIO) -> None:
        self._file = bz2.BZ2File(raw)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)
        except OSError as error:
            if error.errno is None:
                raise EOFError(str(error)) from None
            raise

    def close(self) -> None:
        self._file.close()
        super().close()


class ZstdFile(io.RawIOBase):
    """The frames of a zstandard file, unpacked; a frame that breaks off raises EOFError as gzip and xz do."""

    def __init__(self, raw: BinaryIO, path: str) -> None:
        try:
            import zstandard
        except ImportError:
            raise UserError(
                f"{path}: reading .zst needs the package zstandard (pip install zstandard)"
            ) from None
        self._raw, self._library = raw, zstandard
        self._frame: Any = None
        self._left, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._advance():
            pass
        length = min(len(buffer), len(self._ready))
        buffer[:length], self._ready = self._ready[:length], self._ready[length:]
        return length

    def _advance(self) -> bool:
        """Unpack some more; False at the end."""
        packed = self._left or self._raw.read(1 << 16)
        if not packed:
            if self._frame is not None:
                raise EOFError("the last frame breaks off")
            return False
        self._frame = self._frame or self._library.ZstdDecompressor().decompressobj()
        try:
            self._ready = self._frame.decompress(packed)
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from None
        self._left = self._frame.unused_data if self._frame.eof else b""
        self._frame = None if self._frame.eof else self._frame
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

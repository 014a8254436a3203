"""Files of a corpus: find them, open them (local or remote, compressed or not), and look at their first bytes."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from bert.errors import UserError

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)  # raised by truncated and damaged files
_LOOK = 1 << 16
_UNPACKED = {
    ".gz": 3,
    ".xz": 4,
    ".zst": 3.5,
    ".bz2": 4,
    ".parquet": 2,
    ".pq": 2,
}  # times the packed size, about


@dataclass(frozen=True)
class File:
    """A file of a corpus: a path or URL, and its size in bytes, compressed if it is."""

    path: str
    size: int

    @property
    def compressed(self) -> bool:
        return self.path.lower().endswith(COMPRESSED)

    @property
    def suffix(self) -> str:
        """The ending that names the format, without the compression: .jsonl of wiki.jsonl.gz."""
        name = PurePosixPath(self.path.lower())
        return (name.with_suffix("") if self.compressed else name).suffix

    @property
    def unpacked_size(self) -> int:
        """About how many bytes of text the file holds."""
        return int(self.size * _UNPACKED.get(PurePosixPath(self.path.lower()).suffix, 1))


def find(pattern: str, suffixes: Sequence[str]) -> list[File]:
    """The files of a path, folder, glob or URL, sorted; of several files those that end in one of `suffixes`, if any.

    Raises UserError if there are none.
    """
    files = _find_remote(pattern) if "://" in pattern else _find_local(pattern)
    if isinstance(files, File):
        return [files]
    chosen = sorted(
        (file for file in files if not suffixes or file.suffix in suffixes), key=lambda file: file.path
    )
    if not chosen:
        ending = f" that ends in {', '.join(suffixes)}" if suffixes and files else ""
        raise UserError(f"{pattern}: no file here{ending}; corpus.files takes files, folders, globs and URLs")
    return chosen


def _find_local(pattern: str) -> "File | list[File]":
    path = Path(pattern).expanduser()
    if path.is_file():
        return File(str(path), path.stat().st_size)
    if path.is_dir():
        inside = [found for found in path.rglob("*") if not _hidden(found.relative_to(path))]
    elif has_magic(pattern):
        inside = [Path(found) for found in glob(str(path), recursive=True)]
    else:
        raise UserError(f"{pattern}: no such file or folder; check corpus.files")
    return [File(str(found), found.stat().st_size) for found in inside if found.is_file()]


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _find_remote(url: str) -> "File | list[File]":
    filesystem, path = _filesystem(url)
    try:
        if not has_magic(path) and filesystem.isfile(path):
            return File(url, _size(filesystem, path))
        found = filesystem.glob(path, detail=True) if has_magic(path) else filesystem.find(path, detail=True)
        names = [about["name"] for about in found.values() if about["type"] == "file"]
        return [File(filesystem.unstrip_protocol(name), _size(filesystem, name)) for name in names]
    except Exception as error:  # each kind of remote file fails in its own way
        raise UserError(f"{url}: cannot be read ({_one_line(error)})") from None


def _size(filesystem: Any, path: str) -> int:
    """The bytes of a remote file; 1 if the server does not say."""
    size = filesystem.size(path)
    return 1 if size is None else int(size)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{url}: cannot be read ({_one_line(error)})") from None


def open_raw(path: str) -> BinaryIO:
    """A file without decompression, at its start and able to seek."""
    if "://" in path:
        return io.BufferedReader(_RemoteFile(path), 1 << 20)
    try:
        return open(path, "rb", buffering=1 << 18)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({_one_line(error)})") from None


class _RemoteFile(io.RawIOBase):
    """A file of fsspec as a Python file; errors of the remote side name the file."""

    def __init__(self, url: str) -> None:
        filesystem, path = _filesystem(url)
        self._url = url
        try:
            self._file = filesystem.open(path, "rb")
        except Exception as error:  # each kind of remote file fails in its own way
            raise UserError(f"{url}: cannot be read ({_one_line(error)})") from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read(len(buffer))
        except Exception as error:
            raise UserError(f"{self._url}: cannot be read ({_one_line(error)}); download it first") from None
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


def open_text(path: str) -> IO[bytes]:
    """The content of a file, decompressed."""
    raw = open_raw(path)
    match PurePosixPath(path.lower()).suffix:
        case ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
        case ".bz2":
            return io.BufferedReader(_Bz2File(raw), 1 << 18)
        case ".xz":
            return lzma.LZMAFile(raw)
        case ".zst":
            return io.BufferedReader(_ZstdFile(raw, path), 1 << 18)
    return raw


class _Bz2File(io.RawIOBase):
    """A bz2 file whose damage raises EOFError, as in gzip and xz; the library raises OSError, as for a failing disk."""

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


class _ZstdFile(io.RawIOBase):
    """The frames of a zstandard file, unpacked; a damaged or cut frame raises EOFError, as in gzip and xz."""

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
                raise EOFError("the last frame is cut off")
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


def first_bytes(file: File) -> bytes:
    """The first bytes of a file's content; none if it is damaged."""
    with open_text(file.path) as content:
        try:
            return content.read(_LOOK)
        except DAMAGE:
            return b""


def look(file: File) -> None:
    """Refuse a file whose first bytes are not UTF-8 text. The reader counts single broken bytes later."""
    start = first_bytes(file)
    if b"\0" in start and start.count(b"\0") * 1000 > len(start):
        raise UserError(
            f"{file.path}: is not text (a binary file, or UTF-16); give UTF-8 text, or leave it out"
        )
    broken = start[:-4].decode("utf-8", "replace").count("�") - start.count("�".encode())
    if broken > max(4, len(start) // 500):
        raise UserError(
            f"{file.path}: is not UTF-8 text; convert it (iconv -f latin1 -t utf-8 FILE > NEW), or leave it out"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

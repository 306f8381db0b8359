"""A deterministic zip archive of fixed members, and a reader that trusts nothing in one.

Members are stored, not compressed: the same members give the same bytes with every zlib, and no archive can unfold to
more than its own size.
"""

from __future__ import annotations

import io
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

_VERSION: Final = 20  # of the zip format
_EPOCH: Final = 0x21  # 1 January 1980, the first day of its calendar
_UNIX: Final = 3
_READABLE: Final = 0o100644 << 16
_LIMIT: Final = 1 << 32
_CHUNK: Final = 1 << 20

# What the standard library's reader raises on damaged archives.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    LookupError,
    struct.error,
)


class ContainerError(ValueError):
    """An archive that cannot be read; the message is one sentence."""


def write_container(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of `members` in their order, the same bytes each time.

    Raises `ContainerError` from 4 GiB on.
    """
    return b"".join(container_pieces({name: (data,) for name, data in members.items()}))


def container_pieces(members: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """Return the pieces of that archive, one after the other, where each member is given in pieces: none is copied.

    Written by hand because what `zipfile` writes may change with its version. Raises `ContainerError` from 4 GiB on.
    """
    pieces: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, parts in members.items():
        encoded = name.encode("ascii")
        nbytes, checksum = sum(map(len, parts)), 0
        if offset + nbytes >= _LIMIT:
            raise ContainerError(f"archive must be smaller than {_LIMIT} bytes, not {offset + nbytes}")
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        common = (_VERSION, 0, zipfile.ZIP_STORED, 0, _EPOCH, checksum, nbytes, nbytes, len(encoded), 0)
        header = struct.pack("<4s5H3I2H", b"PK\3\4", *common)
        pieces += [header, encoded, *parts]
        made_by = _UNIX << 8 | _VERSION
        directory += [struct.pack("<4s6H3I5H2I", b"PK\1\2", made_by, *common, 0, 0, 0, _READABLE, offset), encoded]
        offset += len(header) + len(encoded) + nbytes
    index = b"".join(directory)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(members), len(members), len(index), offset, 0)
    return [*pieces, index, end]


def read_container(data: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Return the members of an archive, which must be exactly `names`; raises `ContainerError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, names, len(data))
            return {entry.filename: _read(archive, entry) for entry in entries}
    except ContainerError:
        raise
    except _DAMAGE as error:
        raise ContainerError(f"archive must be an intact zip file: {str(error) or type(error).__name__}") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member, by little and little: read at once, it would be in memory three times."""
    with archive.open(entry) as stream:
        return b"".join(iter(partial(stream.read, _CHUNK), b""))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step: `path` holds the old contents or the new, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_entries(entries: Sequence[zipfile.ZipInfo], names: Sequence[str], limit: int) -> None:
    found = [entry.filename for entry in entries]
    for name in found:
        if name not in names:
            raise ContainerError(f"archive member must be one of {', '.join(names)}, not {name!r}")
        if found.count(name) > 1:
            raise ContainerError(f"archive must hold each member once, not {name!r} {found.count(name)} times")
    for name in names:
        if name not in found:
            raise ContainerError(f"archive must hold {name!r}, which is missing")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ContainerError(f"archive member {entry.filename!r} must be stored, not compressed or encrypted")
        if not entry.file_size == entry.compress_size <= limit:
            claim = f"{entry.file_size} and {entry.compress_size}"
            raise ContainerError(f"archive member {entry.filename!r} must fit {limit} bytes of archive, not {claim}")

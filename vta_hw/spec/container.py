"""A deterministic zip archive of fixed members, and a reader that trusts nothing in one.

Members are stored, not compressed: the same members give the same bytes with every zlib, and no archive can unfold to
more than its own size.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_UNIX: Final = 3
_READABLE: Final = 0o100644 << 16

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
    """Return a zip archive of `members` in their order, the same bytes each time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.create_system = _UNIX
            info.external_attr = _READABLE
            archive.writestr(info, data)
    return stream.getvalue()


def read_container(data: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Return the members of an archive, which must be exactly `names`; raises `ContainerError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, names, len(data))
            return {entry.filename: archive.read(entry) for entry in entries}
    except ContainerError:
        raise
    except _DAMAGE as error:
        raise ContainerError(f"archive must be an intact zip file: {str(error) or type(error).__name__}") from error


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

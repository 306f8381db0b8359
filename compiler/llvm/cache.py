"""Object code kept on disk between runs, one file per key."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"tensor object 2\n"


def _digest(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + code).digest()


@dataclass(frozen=True, kw_only=True)
class ObjectCache:
    """Files in `directory`, which is made when first needed. Damaged files count as absent.

    limit: bytes of all files together; the oldest go first.

    The directory holds native code that will be executed: one that is not the user's, or that others may write to, is
    not used.
    """

    directory: Path
    limit: int = 1 << 29

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.o"

    def load(self, key: str) -> bytes | None:
        """The object stored under `key`, if there is one and it is whole."""
        if not self._is_own():
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        magic, digest, code = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
        return code if magic == _MAGIC and digest == _digest(key, code) else None

    def _is_own(self) -> bool:
        """Whether nobody else can have put code there."""
        try:
            stat = self.directory.stat()
        except OSError:
            return False
        return not hasattr(os, "geteuid") or (stat.st_uid == os.geteuid() and not stat.st_mode & 0o022)

    def store(self, key: str, code: bytes) -> None:
        """Keep `code`; readers see the whole file or none. A directory that cannot be written stays as it is."""
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_own():
                return
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + _digest(key, code) + code)
                os.replace(name, self._path(key))
            except OSError:
                os.unlink(name)
                raise
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        files = sorted(((path.stat(), path) for path in self.directory.glob("*.o")), key=lambda f: -f[0].st_mtime_ns)
        kept = itertools.accumulate(stat.st_size for stat, _ in files)
        for (_, path), total in list(zip(files, kept, strict=True))[1:]:
            if total > self.limit:
                path.unlink()

"""Object code kept on disk between runs, one file per key."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"tensor object 1\n"


@dataclass(frozen=True, kw_only=True)
class ObjectCache:
    """Files in `directory`, which is made when first needed. Damaged files count as absent.

    limit: bytes of all files together; the oldest go first.

    The directory holds native code that will be executed: it must be writable by its owner alone.
    """

    directory: Path
    limit: int = 1 << 29

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.o"

    def load(self, key: str) -> bytes | None:
        """The object stored under `key`, if there is one and it is whole."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        magic, digest, code = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
        return code if magic == _MAGIC and digest == hashlib.sha256(code).digest() else None

    def store(self, key: str, code: bytes) -> None:
        """Keep `code`; readers see the whole file or none. A directory that cannot be written stays as it is."""
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(code).digest() + code)
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

"""Compiled designs kept on disk, one file per key: what a simulator must know of the design, and its machine code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_MAGIC: Final = b"compiled netlist 1\n"
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 8


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Files in `directory`, which is made when first needed. Damaged files count as absent.

    The directory holds native code that will be executed: it must be writable by its owner alone.
    """

    directory: Path

    def load(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """The description and machine code stored under `key`, if they are there and whole."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        begin = len(_MAGIC) + _DIGEST_BYTES
        body = data[begin:]
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : begin] != hashlib.sha256(body).digest():
            return None
        length = int.from_bytes(body[:_LENGTH_BYTES], "little")
        description: dict[str, Any] = json.loads(body[_LENGTH_BYTES : _LENGTH_BYTES + length])
        return description, body[_LENGTH_BYTES + length :]

    def store(self, key: str, description: Mapping[str, Any], code: bytes) -> None:
        """Keep both; readers see the whole file or none. A directory that cannot be written stays as it is."""
        text = json.dumps(description).encode()
        body = len(text).to_bytes(_LENGTH_BYTES, "little") + text + code
        with contextlib.suppress(OSError):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(body).digest() + body)
                os.replace(name, self._path(key))
            except OSError:
                os.unlink(name)
                raise

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.design"

"""NumPy files on the command line. Nothing in them is executed: pickled objects are refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vta.cli.errors import CommandError
from vta.cli.files import read_file

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """``[NAME=]FILE``; `name` is empty when the tensor needs none, being the only one."""

    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.name}={self.path}" if self.name else str(self.path)


def parse_named(option: str, text: str) -> NamedFile:
    """Raises CommandError."""
    name, equals, path = text.rpartition("=")
    if not path or (equals and not name):
        raise CommandError(f"{option} must be FILE or NAME=FILE, not {text!r}")
    return NamedFile(name=name, path=Path(path))


def read_arrays(path: Path) -> Array | dict[str, Array]:
    """The array of an .npy file, or those of an .npz file by name. Raises CommandError."""
    data = read_file(path)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        # numpy recommends to load what it takes for pickled objects unsafely; to others its reasons are of use.
        reason = "it holds Python objects, or no arrays" if "pickle" in str(error) else str(error)
        raise CommandError(f"{path}: must be a NumPy file (.npy or .npz), and is none: {reason}") from error
    except (OSError, EOFError, KeyError, MemoryError, SyntaxError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path}: must be a NumPy file (.npy or .npz), and is none: {error}") from error
    array: Array = loaded
    return array


def read_inputs(files: Iterable[NamedFile]) -> Array | dict[str, Array]:
    """One unnamed .npy file is the array itself; everything else is a dict by name."""
    given = tuple(files)
    if len(given) == 1 and not given[0].name:
        return read_arrays(given[0].path)
    arrays: dict[str, Array] = {}
    for file in given:
        content = read_arrays(file.path)
        if isinstance(content, dict):
            raise CommandError(f"{file.path}: must be an .npy file where inputs are given by name")
        if not file.name:
            raise CommandError(f"{file.path}: must be given as NAME={file.path} where several inputs are given")
        if file.name in arrays:
            raise CommandError(f"Input {file.name!r} must be given once, not twice")
        arrays[file.name] = content
    return arrays


def match_outputs(files: Iterable[NamedFile], names: Sequence[str]) -> dict[str, Path]:
    """Output name -> file to write. Raises CommandError for an unknown name, or a name given twice."""
    chosen: dict[str, Path] = {}
    for file in files:
        name = names[0] if not file.name and len(names) == 1 else file.name
        if name not in names:
            known = ", ".join(map(repr, names))
            raise CommandError(f"--output must be FILE or NAME=FILE with one of the names {known}, not {str(file)!r}")
        if name in chosen:
            raise CommandError(f"--output must name each output once, not {str(file)!r} again")
        chosen[name] = file.path
    return chosen


def npy_bytes(array: Array) -> bytes:
    """Contents of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

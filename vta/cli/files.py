"""Reading and writing files from the command line: a file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from vta.cli.errors import CommandError

Given = tuple[str, Path | None]
"""An option or argument, as the help calls it, and the file it names; None where it is left out."""


def read_file(path: Path) -> bytes:
    """Contents of a file or pipe. Raises OSError, or CommandError for a directory or a device, which may never end."""
    if path.is_dir():
        raise CommandError(f"{path}: must be a file, not a directory")
    if path.is_char_device() or path.is_block_device():
        raise CommandError(f"{path}: must be a file, not a device")
    return path.read_bytes()


def write_files(contents: Mapping[Path, bytes | memoryview]) -> None:
    """Write all files or none of them: each goes to a neighbour first, and the renames come last."""
    staged: dict[Path, str] = {}
    try:
        for path, data in contents.items():
            check_target(path)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            staged[path] = name
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o666 & ~_umask())
        for path in list(staged):
            os.replace(staged[path], path)
            del staged[path]
    finally:
        for name in staged.values():
            os.unlink(name)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of text that may be larger than memory, whole or not at all."""
    check_target(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def check_outputs(outputs: Iterable[Given], inputs: Iterable[Given]) -> None:
    """Raises CommandError unless each output can be written and is neither an input nor another output.

    A command that writes calls this before anything else, with all its files. Links do not hide that files are one.
    """
    others = [(name, path) for name, path in inputs if path is not None]
    for name, path in outputs:
        if path is None:
            continue
        check_target(path)
        for other, taken in others:
            if _same_file(path, taken):
                rival = f"another {name}" if other == name else other
                raise CommandError(f"{name} must be a file of its own, not be {str(path)!r} like {rival}")
        others.append((name, path))


def _same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        # Hard links need files; what a path leads to is also known of one that is still to be written.
        return os.path.realpath(one) == os.path.realpath(other)


def check_target(path: Path) -> None:
    """Raises CommandError unless `path` can be written as a file, as far as can be seen beforehand."""
    if path.is_dir():
        raise CommandError(f"{path}: must be a file, not a directory")
    if path.is_char_device() or path.is_block_device():
        raise CommandError(f"{path}: must be a file, not a device")
    if path.exists() and not path.is_file():
        raise CommandError(f"{path}: must be a file, not a pipe or socket")
    if not path.parent.is_dir():
        raise CommandError(f"{path}: the directory must exist")


def _umask() -> int:
    # There is no call that only reads it.
    mask = os.umask(0)
    os.umask(mask)
    return mask

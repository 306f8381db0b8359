"""The text half of a program file: a JSON object that describes the binary members and vouches for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vta_hw.spec import strict_json
from vta_hw.spec.config import ConfigError, VTAConfig
from vta_hw.spec.program_parts import (
    ADDRESS_LIMIT,
    Buffer,
    Host,
    Launch,
    Layer,
    ProgramError,
    Role,
    Segment,
    Step,
    Tokens,
    check_integer,
    shown,
)

if TYPE_CHECKING:
    from vta_hw.spec.program import Program

FORMAT: Final = "vta-program"
VERSION: Final = 1
MAX_BYTES: Final = 1 << 28
MANIFEST: Final = "manifest.json"
BINARIES: Final = ("insns.bin", "uops.bin", "const.bin")

_Part = TypeVar("_Part")

_KEYS: Final = (
    "format",
    "version",
    "config",
    "config_digest",
    "members",
    "insn_address",
    "uop_address",
    "arena_bytes",
    "buffers",
    "steps",
    "layers",
    "segments",
    "tokens_before",
    "attributes",
)


Pieces = Sequence[bytes]
"""A member in pieces that follow each other: constants are many, and are not copied to be written."""


def members_of(program: Program) -> dict[str, Pieces]:
    """Return the members of a program's file, the manifest first."""
    binaries = _binaries(program)
    return {MANIFEST: (seal(_describe(program, binaries)),), **binaries}


def seal(manifest: Mapping[str, Any]) -> bytes:
    """Return the text of a manifest, with the digest that vouches for all its keys."""
    sealed = {**manifest, "digest": _digest(manifest)}
    # One line for each key keeps the file readable without the cost of indenting everything.
    lines = ",\n".join(f"{_dumps(key)}: {_dumps(value)}" for key, value in sealed.items())
    return f"{{\n{lines}\n}}\n".encode()


def digest_of(program: Program) -> str:
    """Return the SHA-256 (hexadecimal) that identifies a program by its contents."""
    return _digest(_describe(program, _binaries(program)))


def read_members(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the constructor arguments of the `Program` in a file's members; raises `ProgramError`."""
    manifest = _parse(members[MANIFEST])
    _check_format(manifest)
    _check_keys("manifest", manifest, (*_KEYS, "digest"))
    config = _read_config(manifest)
    _check_members(manifest["members"], members)
    arguments = {
        "config": config,
        "insns": members["insns.bin"],
        "uops": members["uops.bin"],
        "insn_address": manifest["insn_address"],
        "uop_address": manifest["uop_address"],
        "arena_bytes": manifest["arena_bytes"],
        "buffers": _read_list("buffers", manifest, _read_buffer),
        "steps": _read_list("steps", manifest, _read_step),
        "layers": _read_list("layers", manifest, _read_layer),
        "segments": _read_segments(manifest, members["const.bin"]),
        "tokens_before": Tokens(
            **_check_keys("tokens_before", manifest["tokens_before"], ("l2g", "g2l", "g2s", "s2g"))
        ),
        "attributes": manifest["attributes"],
    }
    _check_digest("manifest digest", manifest["digest"], _digest({key: manifest[key] for key in _KEYS}))
    return arguments


def _binaries(program: Program) -> dict[str, Pieces]:
    contents = ((program.insns,), (program.uops,), tuple(segment.data for segment in program.segments))
    return dict(zip(BINARIES, contents, strict=True))


def _describe(program: Program, binaries: Mapping[str, Pieces]) -> dict[str, Any]:
    tokens = program.tokens_before
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": program.config.to_dict(),
        "config_digest": program.config.digest,
        "members": {
            name: {"nbytes": sum(map(len, pieces)), "sha256": _sha256(*pieces)} for name, pieces in binaries.items()
        },
        "insn_address": program.insn_address,
        "uop_address": program.uop_address,
        "arena_bytes": program.arena_bytes,
        "buffers": [{**vars(buffer), "role": buffer.role.value} for buffer in program.buffers],
        "steps": [_describe_step(step) for step in program.steps],
        "layers": [vars(layer) for layer in program.layers],
        "segments": [{"address": segment.address, "nbytes": len(segment.data)} for segment in program.segments],
        "tokens_before": vars(tokens),
        "attributes": program.attributes,
    }


def _describe_step(step: Step) -> dict[str, Any]:
    return {"kind": "launch" if isinstance(step, Launch) else "host", **vars(step)}


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _sha256(*pieces: bytes) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode())


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ProgramError(f"manifest must be at most {MAX_BYTES} bytes, not {len(data)}")
    try:
        manifest = strict_json.parse(data.decode("utf-8"))
    except ValueError as error:
        raise ProgramError(f"manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise ProgramError(f"manifest must be a JSON object, not {shown(manifest)}")
    return manifest


def _check_format(manifest: Mapping[str, Any]) -> None:
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        value = manifest.get(key)
        if type(value) is not type(expected) or value != expected:
            raise ProgramError(f"manifest {key} must be {expected!r}, not {shown(value)}")


def _check_keys(subject: str, value: object, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProgramError(f"{subject} must be a JSON object, not {shown(value)}")
    for key in value:
        if key not in keys:
            raise ProgramError(f"{subject} must have the keys {', '.join(keys)}, not {shown(key)}")
    for key in keys:
        if key not in value:
            raise ProgramError(f"{subject} must have the key {key!r}, which is missing")
    return value


def _check_digest(subject: str, value: object, expected: str) -> None:
    if value != expected:
        raise ProgramError(f"{subject} must be {expected!r}, not {shown(value)}")


def _read_config(manifest: Mapping[str, Any]) -> VTAConfig:
    value = manifest["config"]
    if not isinstance(value, dict):
        raise ProgramError(f"manifest config must be a JSON object, not {shown(value)}")
    try:
        config = VTAConfig.from_json(value)
    except ConfigError as error:
        raise ProgramError(f"manifest config must be a possible one: {error}") from error
    _check_digest("config digest", manifest["config_digest"], config.digest)
    return config


def _check_members(table: object, members: Mapping[str, bytes]) -> None:
    entries = _check_keys("members", table, BINARIES)
    for name in BINARIES:
        entry = _check_keys(f"member {name!r}", entries[name], ("nbytes", "sha256"))
        data = members[name]
        if check_integer(f"member {name!r} nbytes", entry["nbytes"], 0, ADDRESS_LIMIT) != len(data):
            raise ProgramError(f"member {name!r} must have {entry['nbytes']} bytes, not {len(data)}")
        if entry["sha256"] != _sha256(data):
            raise ProgramError(f"member {name!r} must have digest {shown(entry['sha256'])}, not {_sha256(data)!r}")


def _read_list(key: str, manifest: Mapping[str, Any], read: Callable[[str, object], _Part]) -> tuple[_Part, ...]:
    value = manifest[key]
    if not isinstance(value, list):
        raise ProgramError(f"{key} must be a list, not {shown(value)}")
    return tuple(read(f"{key}[{place}]", item) for place, item in enumerate(value))


def _read_buffer(subject: str, value: object) -> Buffer:
    entry = _check_keys(subject, value, ("name", "role", "dtype", "shape", "layout", "address", "nbytes"))
    roles = {role.value: role for role in Role}
    role = entry["role"]
    if not isinstance(role, str) or role not in roles:
        raise ProgramError(f"{subject} role must be one of {', '.join(roles)}, not {shown(role)}")
    return Buffer(**{**entry, "role": roles[role]})


def _read_step(subject: str, value: object) -> Step:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "launch":
        entry = _check_keys(subject, value, ("kind", "insn_begin", "insn_count"))
        return Launch(insn_begin=entry["insn_begin"], insn_count=entry["insn_count"])
    if kind == "host":
        entry = _check_keys(subject, value, ("kind", "name", "proc", "buffers"))
        return Host(name=entry["name"], proc=entry["proc"], buffers=entry["buffers"])
    raise ProgramError(f"{subject} must be of kind 'launch' or 'host', not {shown(kind)}")


def _read_layer(subject: str, value: object) -> Layer:
    return Layer(**_check_keys(subject, value, ("name", "insn_begin", "insn_end", "macs", "attributes")))


def _read_segments(manifest: Mapping[str, Any], data: bytes) -> tuple[Segment, ...]:
    offset = 0

    def read(subject: str, value: object) -> Segment:
        nonlocal offset
        entry = _check_keys(subject, value, ("address", "nbytes"))
        nbytes = check_integer(f"{subject} nbytes", entry["nbytes"], 1, ADDRESS_LIMIT)
        begin, offset = offset, offset + nbytes
        if offset > len(data):
            raise ProgramError(f"{subject} must end within the {len(data)} bytes of 'const.bin', not at {offset}")
        return Segment(address=entry["address"], data=data[begin:offset])

    segments = _read_list("segments", manifest, read)
    if offset != len(data):
        raise ProgramError(f"segments must cover the {len(data)} bytes of 'const.bin', not {offset}")
    return segments

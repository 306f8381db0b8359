"""The trace file: a zip archive of a JSON manifest and three arrays, read as data from a stranger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from vta_hw.spec import strict_json
from vta_hw.spec.config import ConfigError, VTAConfig

if TYPE_CHECKING:
    from vta_sim.trace import Trace

FORMAT: Final = "vta-trace"
VERSION: Final = 1
MANIFEST: Final = "trace.json"
ARRAYS: Final = {"words": "words.bin", "insns": "insns.bin", "spans": "spans.bin"}
MEMBERS: Final = (MANIFEST, *ARRAYS.values())

_KEYS: Final = ("format", "version", "config", "config_digest", "cycles", "members")
_ROW_BYTES: Final = {"words": 16, "insns": 17, "spans": 21}
_MAX_CYCLES: Final = 1 << 62


class TraceError(ValueError):
    """A trace, or a trace file, that breaks a rule; the message is one sentence."""


def members_of(trace: Trace) -> dict[str, bytes]:
    """The members of a trace's file, the manifest first."""
    arrays = {name: getattr(trace, name).tobytes() for name in ARRAYS}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "config": trace.config.to_dict(),
        "config_digest": trace.config.digest,
        "cycles": trace.cycles,
        "members": {ARRAYS[name]: hashlib.sha256(data).hexdigest() for name, data in arrays.items()},
    }
    text = json.dumps(manifest, indent=1) + "\n"
    return {MANIFEST: text.encode(), **{ARRAYS[name]: data for name, data in arrays.items()}}


def read_members(members: Mapping[str, bytes]) -> tuple[VTAConfig, int, dict[str, bytes]]:
    """Configuration, cycles and the contents of the arrays, by name; raises `TraceError`."""
    manifest = _parse(members[MANIFEST])
    for key, expected in (("format", FORMAT), ("version", VERSION)):
        if type(manifest.get(key)) is not type(expected) or manifest[key] != expected:
            raise TraceError(f"trace {key} must be {expected!r}, not {manifest.get(key)!r}")
    if tuple(manifest) != _KEYS:
        raise TraceError(f"trace manifest must have the keys {', '.join(_KEYS)}, not {', '.join(manifest)}")
    config = _read_config(manifest)
    cycles = manifest["cycles"]
    if type(cycles) is not int or not 0 <= cycles <= _MAX_CYCLES:
        raise TraceError(f"trace cycles must be an integer from 0 to {_MAX_CYCLES}, not {cycles!r}")
    arrays = {name: members[member] for name, member in ARRAYS.items()}
    digests = {ARRAYS[name]: hashlib.sha256(data).hexdigest() for name, data in arrays.items()}
    if manifest["members"] != digests:
        raise TraceError(f"trace members must have the digests {manifest['members']!r}, not {digests!r}")
    for name, data in arrays.items():
        if len(data) % _ROW_BYTES[name]:
            raise TraceError(f"trace {name} must be a multiple of {_ROW_BYTES[name]} bytes, not {len(data)}")
    return config, cycles, arrays


def _parse(data: bytes) -> dict[str, Any]:
    try:
        manifest = strict_json.parse(data.decode("utf-8"))
    except ValueError as error:
        raise TraceError(f"trace manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise TraceError(f"trace manifest must be a JSON object, not {type(manifest).__name__}")
    return manifest


def _read_config(manifest: Mapping[str, Any]) -> VTAConfig:
    try:
        config = VTAConfig.from_json(manifest["config"])
    except (ConfigError, TypeError, ValueError) as error:
        raise TraceError(f"trace config must be a possible one: {error}") from error
    if manifest["config_digest"] != config.digest:
        raise TraceError(f"trace config digest must be {config.digest!r}, not {manifest['config_digest']!r}")
    return config

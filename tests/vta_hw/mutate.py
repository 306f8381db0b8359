"""Damage to program files, repeatable by seed: at the level of bytes, of the archive, and of the manifest's JSON."""

from __future__ import annotations

import copy
import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vta_hw.spec.container import write_container
from vta_hw.spec.manifest import MANIFEST, seal


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A damaged file. If `sealed`, digests were made good again, so that what is left may be a correct program."""

    kind: str
    data: bytes
    sealed: bool = False


def mutations(data: bytes, seed: int, count: int) -> Iterator[Mutation]:
    """Yield `count` files that differ from the intact program file `data`; equal arguments give equal files."""
    for number in range(seed, seed + count):
        yield mutation(data, number)


def mutation(data: bytes, seed: int) -> Mutation:
    """Return the damaged file of one seed."""
    rng = random.Random(seed)
    while True:
        kind = rng.choice(list(_KINDS))
        damaged = _KINDS[kind](rng, data)
        if damaged != data:
            return Mutation(kind=kind, data=damaged, sealed=kind.startswith("sealed"))


def truncate(rng: random.Random, data: bytes) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data))]


def flip_bits(rng: random.Random, data: bytes) -> bytes:
    """Invert one to four bits."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def splice(rng: random.Random, data: bytes) -> bytes:
    """Replace a stretch by random bytes, or by another stretch of the file, of any length."""
    begin = rng.randrange(len(data) + 1)
    end = min(len(data), begin + rng.choice([0, 1, 4, 64, len(data)]))
    other = rng.randrange(len(data))
    length = rng.choice([0, 1, 4, 22, 64, 300])
    patch = rng.randbytes(length) if rng.random() < 0.5 else data[other : other + length]
    return data[:begin] + patch + data[end:]


def rearrange(rng: random.Random, data: bytes) -> bytes:
    """Rewrite the archive: compressed, in another order, with a member missing, repeated, renamed or added."""
    members = list(_members(data).items())
    chosen = rng.randrange(len(members))
    name, contents = members[chosen]
    change = rng.randrange(6)
    if change == 0:
        rng.shuffle(members)
    elif change == 1:
        del members[chosen]
    elif change == 2:
        members.append((name, contents))
    elif change == 3:
        members[chosen] = (rng.choice(["../" + name, name + "/", "/etc/passwd", "", "\u00e9"]), contents)
    elif change == 4:
        members.append(("bomb.bin", bytes(1 << 20)))
    method = zipfile.ZIP_DEFLATED if change >= 4 else zipfile.ZIP_STORED
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of the repeated member
        for member, body in members:
            archive.writestr(zipfile.ZipInfo(member), body, compress_type=method)
    return stream.getvalue()


def edit_binary(rng: random.Random, data: bytes) -> bytes:
    """Change a binary member and keep the archive in order."""
    members = _members(data)
    name = rng.choice([name for name in members if name != MANIFEST])
    change = rng.choice([truncate, flip_bits, splice])
    return write_container({**members, name: change(rng, members[name] or b"\0")})


def edit_manifest(rng: random.Random, data: bytes) -> bytes:
    """Change the manifest as a text editor would, leaving its digest as it was."""
    members = _members(data)
    manifest = json.loads(members[MANIFEST])
    text = json.dumps(_edited(rng, manifest))
    if rng.random() < 0.2:
        text = text.replace(rng.choice([",", ":", "{", "]", '"']), rng.choice(["", ",", "[", "NaN"]), 1)
    return write_container({**members, MANIFEST: text.encode()})


def edit_sealed_manifest(rng: random.Random, data: bytes) -> bytes:
    """Change the manifest and make its digest good again, to reach the checks behind it."""
    members = _members(data)
    manifest = json.loads(members[MANIFEST])
    del manifest["digest"]
    for _ in range(rng.choice([1, 1, 1, 3])):
        manifest = _edited(rng, manifest)
    try:
        return write_container({**members, MANIFEST: seal(manifest)})
    except ValueError:  # NaN and infinity cannot be sealed
        return data


_KINDS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "truncate": truncate,
    "flip bits": flip_bits,
    "splice": splice,
    "rearrange": rearrange,
    "edit binary": edit_binary,
    "edit manifest": edit_manifest,
    "sealed edit": edit_sealed_manifest,
    "sealed edit again": edit_sealed_manifest,
}

_NEST: Any = []
for _ in range(300):
    _NEST = [_NEST]

_ABSURD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        7,
        2**31,
        2**32,
        2**63,
        2**64,
        10**30,
        -(2**63),
        1.5,
        1e300,
        float("inf"),
        float("nan"),
    ),
    *("", "x", "input", "launch", "int8", "\ud800", "\n", "y" * 5000, "0" * 64),
    *([], {}, [[]], {"": None}, [1, 2, 3], [2**40] * 20, {"kind": "host"}, [-1], _NEST),
)


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a JSON value with every key or index it has."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _edited(rng: random.Random, manifest: dict[str, Any]) -> dict[str, Any]:
    edited = copy.deepcopy(manifest)
    holder, key = rng.choice(list(_places(edited)))
    change = rng.randrange(8)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif change == 2 and isinstance(holder, dict):
        holder[rng.choice(["extra", "name", "", "LOG_BLOCK_IN", "kind"])] = rng.choice(_ABSURD)
    elif change == 3 and type(holder[key]) is int:
        holder[key] += rng.choice([-16, -8, -1, 1, 4, 8, 16, 4096])
    elif change == 4:
        other, name = rng.choice(list(_places(edited)))
        holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(rng.choice(_ABSURD))
    return edited

"""Damage to files: cut, extended, flipped bits, bytes replaced, pieces moved, JSON edited."""

from __future__ import annotations

import random
import re


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` after one mutation, never equal to it."""
    while True:
        kind = rng.choice([cut, extend, flip, overwrite, swap, edit_number, drop])
        result = kind(data, rng)
        if result != data:
            return result


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 64))


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 8])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.randrange(1, 64)
    return data[:at] + rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)]) + data[at + size :]


def swap(data: bytes, rng: random.Random) -> bytes:
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def drop(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 64) :]


def edit_number(data: bytes, rng: random.Random) -> bytes:
    """Another number where the text has one, of the same length, as somebody with an editor would write."""
    numbers = [match for match in re.finditer(rb"(?<=: )[0-9]+|(?<=:)[0-9]+", data) if len(match.group()) < 20]
    if not numbers:
        return data
    match = rng.choice(numbers)
    digits = "".join(rng.choice("0123456789") for _ in match.group()).encode()
    return data[: match.start()] + digits + data[match.end() :]

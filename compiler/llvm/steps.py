"""From the serialised steps of a program to native code for the machine that they run on, kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final

import numpy as np

import compiler.llvm
import compiler.tensor
from compiler.llvm.cache import ObjectCache
from compiler.llvm.jit import Description
from compiler.llvm.module import Call, generate_run
from compiler.llvm.parallel import share_loops
from compiler.llvm.registers import Registers
from compiler.llvm.schedule import schedule_of_any
from compiler.llvm.target import Target, emit_object
from compiler.tensor.arguments import Parameter, Signature
from compiler.tensor.ir import Proc
from compiler.tensor.schedule import Schedule
from compiler.tensor.serial import from_json


@dataclass(frozen=True, kw_only=True)
class SerialStep:
    """A procedure, serialised (`compiler.tensor.serial`), and the numbers of the buffers that it is called with.

    name: for messages; procedures that differ in nothing but their own share their code.
    """

    name: str
    proc: Mapping[str, Any]
    buffers: tuple[int, ...]


def scheduled(proc: Proc, target: Target) -> Schedule:
    """How a verified procedure runs on `target`, on any number of threads."""
    made = schedule_of_any(proc, Registers.of(target))
    share_loops(made)
    return made


def native_steps(
    steps: Sequence[SerialStep], target: Target, *, cache: ObjectCache | None = None
) -> tuple[Description, bytes]:
    """Object code of `steps`, one after the other, and its description.

    Steps are verified before anything is made of them; what the cache holds has been. Raises SerialError for a step
    that is no procedure, or breaks a rule of the IR, ArgumentError for one with too many buffers or too few.
    """
    key = _key(steps, target) if cache is not None else ""
    if cache is not None and (kept := cache.load(key)) is not None:
        text, _, code = kept.partition(b"\n")
        return _read(json.loads(text)), code
    numbers: dict[str, int] = {}
    procs: list[Proc] = []
    calls: list[Call] = []
    signatures: list[Signature] = []
    for step in steps:
        content = _dumps({key: value for key, value in step.proc.items() if key != "name"})
        if content not in numbers:
            numbers[content] = len(procs)
            procs.append(from_json(dict(step.proc)))
        call = Call(proc=numbers[content], buffers=step.buffers)
        signature = replace(Signature.of(procs[call.proc]), name=step.name)
        signature.check_count(len(step.buffers))
        calls.append(call)
        signatures.append(signature)
    module = generate_run([scheduled(proc, target).proc for proc in procs], calls, target)
    description = Description(
        calls=tuple((signature, call.buffers) for signature, call in zip(signatures, calls, strict=True)),
        shared=module.shared,
        private=module.private,
    )
    code = emit_object(module.text, target)
    if cache is not None:
        cache.store(key, _dumps(_written(description)).encode() + b"\n" + code)
    return description, code


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for package in (compiler.llvm, compiler.tensor):
        for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


_SOURCES: Final = _digest_of_sources()
"""Of what is loaded: files may change under a process that runs."""


def _key(steps: Sequence[SerialStep], target: Target) -> str:
    """Differs when the code might: by the steps as they stand, the machine, and what makes code of them."""
    digest = hashlib.sha256(f"{target.digest_text}\n{_SOURCES}\n".encode())
    for step in steps:
        digest.update(_dumps([step.name, step.proc, step.buffers]).encode() + b"\n")
    return digest.hexdigest()


# -- descriptions as JSON values


def _written(description: Description) -> dict[str, Any]:
    """Signatures are named by their numbers, for most are used again and again."""
    signatures = list(dict.fromkeys(signature for signature, _ in description.calls))
    number = {signature: n for n, signature in enumerate(signatures)}
    return {
        "signatures": [
            [s.name, [[p.name, p.dtype.name, p.shape, p.is_written] for p in s.parameters]] for s in signatures
        ],
        "calls": [[number[signature], numbers] for signature, numbers in description.calls],
        "shared": description.shared,
        "private": description.private,
    }


def _read(value: Mapping[str, Any]) -> Description:
    """What `_written` has made, whose digest the cache has compared."""
    signatures = [
        Signature(
            name=name,
            parameters=tuple(
                Parameter(name=each, dtype=np.dtype(dtype), shape=tuple(shape), is_written=is_written)
                for each, dtype, shape, is_written in parameters
            ),
        )
        for name, parameters in value["signatures"]
    ]
    calls = tuple((signatures[number], tuple(numbers)) for number, numbers in value["calls"])
    return Description(calls=calls, shared=value["shared"], private=value["private"])

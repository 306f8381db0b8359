"""Programs and their files: what is kept, what is derived, what a damaged file does."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vta_hw.fuzz_program import problem
from tests.vta_hw.mutate import mutations
from tests.vta_hw.samples import compiled_program, raw_program
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.isa import ISA, Finish
from vta_hw.spec.program import Buffer, Host, Launch, Layer, Program, ProgramError, Role, Segment, Tokens

SAMPLES = [compiled_program, raw_program]


@pytest.mark.parametrize("sample", SAMPLES)
def test_round_trip(sample: Callable[[], Program], tmp_path: Path) -> None:
    program = sample()
    assert Program.from_bytes(program.to_bytes()) == program
    program.save(tmp_path / "p.vta")
    assert Program.load(str(tmp_path / "p.vta")) == program
    assert (tmp_path / "p.vta").read_bytes() == program.to_bytes() == sample().to_bytes()


def test_file_format_is_fixed() -> None:
    # Files outlive versions of this package: a change of the bytes needs a new manifest version.
    digests = [hashlib.sha256(sample().to_bytes()).hexdigest() for sample in SAMPLES]
    assert digests == [
        "df3f992558b6f875bc4c4f94e1aa27af8535ac06aee0b53037c8436f19ff1064",
        "83d5ba5e82fa5b77fec34a06b7569b7b2c378db55d36e49ac9480852b42ae5c4",
    ]


def test_members(tmp_path: Path) -> None:
    program = compiled_program()
    program.save(tmp_path / "p.vta")
    with zipfile.ZipFile(tmp_path / "p.vta") as archive:
        assert archive.namelist() == ["manifest.json", "insns.bin", "uops.bin", "const.bin"]
        assert archive.read("insns.bin") == program.insns
        assert archive.read("uops.bin") == program.uops
        assert archive.read("const.bin") == b"abcde" + bytes(16)
        manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["format"], manifest["version"]) == ("vta-program", 1)
    assert manifest["config"] == program.config.to_dict()
    assert manifest["config_digest"] == program.config.digest
    assert manifest["members"]["uops.bin"] == {"nbytes": 8, "sha256": hashlib.sha256(program.uops).hexdigest()}
    assert manifest["digest"] == program.digest


def test_digest_names_the_contents() -> None:
    program = compiled_program()
    assert program.digest == compiled_program().digest
    changed = [
        replace(program, attributes={}),
        replace(program, uops=bytes(8)),
        replace(program, segments=program.segments[:1]),
        replace(program, config=replace(program.config, target="other")),
    ]
    assert len({program.digest, *(other.digest for other in changed)}) == 5


def test_properties() -> None:
    program = compiled_program()
    assert not program.is_raw
    assert (program.insn_count, program.uop_count) == (6, 2)
    assert [buffer.name for buffer in program.inputs] == ["input"]
    assert [buffer.name for buffer in program.outputs] == ["output"]
    assert program.buffer("weight").role is Role.CONSTANT
    with pytest.raises(ProgramError, match=r"^buffer must be one of input, weight, .*, not 'bias'$"):
        program.buffer("bias")
    with pytest.raises(ProgramError, match=r"^buffer must be one of none, not 'bias'$"):
        raw_program().buffer("bias")


def test_raw_program() -> None:
    program = raw_program()
    assert program.is_raw
    assert program.steps == (Launch(insn_begin=0, insn_count=2),)
    assert program.insn_address == (1 << 31) + 4096
    config = VTAConfig()
    insns = ISA(config).encode_program([Finish()])
    assert Program.raw(config=config, insns=insns).insn_address == 4096
    placed = Program.raw(config=config, insns=insns.tobytes(), insn_address=64, attributes={"from": "elsewhere"})
    assert (placed.insn_address, placed.tokens_before) == (64, Tokens())
    assert placed.insns == np.array([3, 0], dtype="<u8").tobytes()


def test_free_form_values_are_kept_as_json() -> None:
    layout: dict[str, Any] = {"b": (1, 2.5, None), "a": {"y": True, "x": "é"}}
    buffer = Buffer(name="x", role=Role.INPUT, dtype="int8", shape=(2,), layout=layout, address=0, nbytes=2)
    assert buffer.layout == {"a": {"x": "é", "y": True}, "b": [1, 2.5, None]}
    assert list(buffer.layout) == ["a", "b"]
    layout["c"] = 3
    assert "c" not in buffer.layout


def test_numpy_integers_become_integers() -> None:
    size: Any = np.int64(4)
    buffer = Buffer(name="x", role=Role.INPUT, dtype="int32", shape=(size,), address=size, nbytes=16 * size // 4)
    assert [type(value) for value in (buffer.shape[0], buffer.address, buffer.nbytes)] == [int, int, int]
    assert type(Launch(insn_begin=size - size, insn_count=size).insn_count) is int


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"),
    [
        ("int4", (3, 3), 5),
        ("int4", (2,), 1),
        ("int8", (2, 3), 6),
        ("int16", (2, 3), 12),
        ("int32", (), 4),
        ("float32", (5,), 20),
    ],
)
def test_buffer_sizes(dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
    assert Buffer(name="x", role=Role.INPUT, dtype=dtype, shape=shape, address=0, nbytes=nbytes).shape == shape


def test_workspaces_may_share_memory_and_segments_fill_buffers() -> None:
    program = compiled_program()
    first, second = (program.buffer(name) for name in ("scratch 1", "scratch 2"))
    assert first.address < second.address < first.address + first.nbytes
    assert program.segments[0].address == program.buffer("weight").address


def test_host_only_program() -> None:
    program = Program(config=VTAConfig(), insns=b"", arena_bytes=1, steps=[Host(name="f", proc={}, buffers=[])])  # type: ignore[arg-type]  # lists become tuples
    assert program.steps == (Host(name="f", proc={}, buffers=()),)
    assert Program.from_bytes(program.to_bytes()) == program


def test_save_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.vta"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            compiled_program().save(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    compiled_program().save(path)
    assert Program.load(path) == compiled_program()
    assert list(tmp_path.iterdir()) == [path]


def test_load_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.vta"
    with pytest.raises(ProgramError, match=r"p\.vta: program file cannot be read: No such file or directory$"):
        Program.load(path)
    path.write_bytes(b"not a program")
    with pytest.raises(
        ProgramError, match=r"p\.vta: program file cannot be read: archive must be an intact zip file: "
    ):
        Program.load(path)


@pytest.mark.parametrize("sample", SAMPLES)
def test_fifty_mutations(sample: Callable[[], Program]) -> None:
    damages = list(mutations(sample().to_bytes(), seed=0, count=50))
    assert len({damage.kind for damage in damages}) >= 6
    assert [found for damage in damages if (found := problem(damage)) is not None] == []


def test_mutations_are_repeatable() -> None:
    data = compiled_program().to_bytes()
    assert list(mutations(data, seed=7, count=20)) == list(mutations(data, seed=7, count=20))
    assert all(damage.data != data for damage in mutations(data, seed=7, count=20))


def test_every_flipped_bit_is_noticed() -> None:
    data = raw_program().to_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ProgramError):
            Program.from_bytes(bytes(damaged))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(), json_values, max_size=4),
    st.binary(max_size=5),
    st.integers(1, 2**20),
    st.lists(st.sampled_from(["int4", "int8", "int16", "int32", "float32"]), max_size=4),
)
def test_any_program_comes_back(attributes: dict[str, object], data: bytes, macs: int, dtypes: list[str]) -> None:
    buffers = [
        Buffer(
            name=f"b{place}", role=Role.WORKSPACE, dtype=dtype, shape=(2,), layout=attributes, address=64, nbytes=nbytes
        )
        for place, dtype in enumerate(dtypes)
        for nbytes in [{"int4": 1, "int8": 2, "int16": 4, "int32": 8, "float32": 8}[dtype]]
    ]
    program = Program(
        config=VTAConfig(),
        insns=bytes(32),
        uop_address=32,
        arena_bytes=1024,
        buffers=tuple(buffers),
        steps=(Host(name="h", proc=attributes, buffers=tuple(buffer.name for buffer in buffers)),),
        layers=(Layer(name="l", insn_begin=0, insn_end=2, macs=macs, attributes=attributes),),
        segments=(Segment(address=100, data=data + b"."),),
        attributes=attributes,
    )
    again = Program.from_bytes(program.to_bytes())
    assert again == program
    assert again.to_bytes() == program.to_bytes()

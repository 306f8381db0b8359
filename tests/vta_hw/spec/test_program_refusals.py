"""Every rule of a program, by the sentence that refuses to break it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.vta_hw.samples import compiled_program, raw_program
from vta_hw.spec.config import VTAConfig
from vta_hw.spec.container import read_container, write_container
from vta_hw.spec.manifest import BINARIES, MANIFEST, seal
from vta_hw.spec.program import Buffer, Host, Launch, Layer, Program, ProgramError, Role, Segment, Tokens

BUFFER: dict[str, Any] = {"name": "x", "role": Role.INPUT, "dtype": "int8", "shape": (4,), "address": 2048, "nbytes": 4}
ONLY_STEP = "one launch of all 2 instructions as its only step"
BATCH_RULE = "LOG_BATCH must be an integer from 0 to 9 (1 to 512 rows in a tile)"
KEYS = (
    *("format", "version", "config", "config_digest", "members", "insn_address", "uop_address", "arena_bytes"),
    *("buffers", "steps", "layers", "segments", "tokens_before", "attributes", "digest"),
)
NEST: Any = {}
for _ in range(200):
    NEST = {"a": NEST}


def refusal(message: str) -> Any:
    return pytest.raises(ProgramError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "buffer name must be a text of 1 to 1024 printable characters, not ''"),
        ({"name": 5}, "buffer name must be a text of 1 to 1024 printable characters, not 5"),
        ({"name": "a\nb"}, "buffer name must be a text of 1 to 1024 printable characters, not 'a\\nb'"),
        ({"role": "input"}, "buffer 'x' role must be a Role, not 'input'"),
        ({"dtype": 8}, "buffer 'x' dtype must be a text, not 8"),
        (
            {"dtype": "int9"},
            (
                "buffer 'x' dtype must be one of int4, bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, "
                "float16, float32, float64, not 'int9'"
            ),
        ),
        ({"shape": 4}, "buffer 'x' shape must be a list of integers, not 4"),
        ({"shape": (1,) * 17}, "buffer 'x' shape must have at most 16 extents, not 17"),
        ({"shape": (0,)}, "buffer 'x' shape must be 1 to 4294967296, not 0"),
        ({"shape": (2.0,)}, "buffer 'x' shape must be an integer, not 2.0"),
        ({"shape": (True,)}, "buffer 'x' shape must be an integer, not True"),
        ({"address": -1}, "buffer 'x' address must be 0 to 4294967295, not -1"),
        ({"address": "0"}, "buffer 'x' address must be an integer, not '0'"),
        ({"nbytes": 5}, "buffer 'x' nbytes must be 4 for int8 of shape [4], not 5"),
        ({"nbytes": 0}, "buffer 'x' nbytes must be 1 to 4294967296, not 0"),
        ({"dtype": "int4"}, "buffer 'x' nbytes must be 2 for int4 of shape [4], not 4"),
        ({"dtype": "int32", "address": 2050}, "buffer 'x' address must be a multiple of 4 bytes, not 2050"),
        ({"layout": []}, "buffer 'x' layout must be a JSON object, not []"),
        ({"layout": {1: 2}}, "buffer 'x' layout must have texts as keys, not 1"),
        (
            {"layout": {"a": [b"b"]}},
            "buffer 'x' layout['a'][0] must be a JSON value (integers of 64 bits, finite numbers), not b'b'",
        ),
        (
            {"layout": {"a": float("inf")}},
            "buffer 'x' layout['a'] must be a JSON value (integers of 64 bits, finite numbers), not inf",
        ),
        (
            {"layout": {"a": 1 << 63}},
            f"buffer 'x' layout['a'] must be a JSON value (integers of 64 bits, finite numbers), not {1 << 63}",
        ),
        ({"layout": NEST}, "buffer 'x' layout cannot be kept: JSON must nest at most 192 levels"),
    ],
)
def test_buffers(values: dict[str, Any], message: str) -> None:
    with refusal(message):
        Buffer(**{**BUFFER, **values})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Launch(insn_begin=-1, insn_count=1), "launch insn_begin must be 0 to 4294967296, not -1"),
        (lambda: Launch(insn_begin=0, insn_count=0), "launch insn_count must be 1 to 4294967296, not 0"),
        (
            lambda: Host(name="", proc={}, buffers=()),
            "host step name must be a text of 1 to 1024 printable characters, not ''",
        ),
        (lambda: Host(name="h", proc=None, buffers=()), "host step 'h' proc must be a JSON object, not None"),  # type: ignore[arg-type]  # the refusal is tested
        (lambda: Host(name="h", proc={}, buffers="x"), "host step 'h' buffers must be a list of names, not 'x'"),  # type: ignore[arg-type]  # the refusal is tested
        (
            lambda: Host(name="h", proc={}, buffers=(1,)),  # type: ignore[arg-type]  # the refusal is tested
            "host step 'h' buffer must be a text of 1 to 1024 printable characters, not 1",
        ),
        (
            lambda: Layer(name=None, insn_begin=0, insn_end=1),  # type: ignore[arg-type]  # the refusal is tested
            "layer name must be a text of 1 to 1024 printable characters, not None",
        ),
        (lambda: Layer(name="l", insn_begin=2, insn_end=1), "layer 'l' insn_end must be 2 to 4294967296, not 1"),
        (
            lambda: Layer(name="l", insn_begin=0, insn_end=1, macs=-1),
            "layer 'l' macs must be 0 to 9223372036854775807, not -1",
        ),
        (
            lambda: Layer(name="l", insn_begin=0, insn_end=1, attributes=[]),  # type: ignore[arg-type]  # the refusal is tested
            "layer 'l' attributes must be a JSON object, not []",
        ),
        (lambda: Segment(address=1 << 32, data=b"x"), "segment address must be 0 to 4294967295, not 4294967296"),
        (lambda: Segment(address=0, data=b""), "segment data must be at least 1 byte, not 0"),
        (lambda: Segment(address=0, data=[1]), "segment data must be bytes, not [1]"),  # type: ignore[arg-type]  # the refusal is tested
        (lambda: Tokens(g2s=-1), "tokens g2s must be 0 to 1048576, not -1"),
        (lambda: Tokens(l2g=True), "tokens l2g must be an integer, not True"),
    ],
)
def test_other_parts(make: Callable[[], object], message: str) -> None:
    with refusal(message):
        make()


def workspace(**values: Any) -> Buffer:
    return Buffer(**{**BUFFER, "role": Role.WORKSPACE, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config": "sim"}, "program config must be a VTAConfig, not 'sim'"),
        ({"tokens_before": None}, "program tokens_before must be Tokens, not None"),
        ({"insns": [0] * 16}, f"program insns must be bytes, not [{'0, ' * 6}...]"),
        ({"insns": bytes(17)}, "program insns must be a multiple of 16 bytes, not 17"),
        ({"uops": bytes(3)}, "program uops must be a multiple of 4 bytes, not 3"),
        ({"buffers": None}, "program buffers must be a sequence, not None"),
        ({"buffers": ("x",)}, "program buffers must be a sequence of Buffer, not 'x'"),
        ({"steps": (1,)}, "program steps must be a sequence of Launch or Host, not 1"),
        ({"insn_address": 4}, "program insn_address must be a multiple of 8, not 4"),
        ({"uop_address": 130}, "program uop_address must be a multiple of 4, not 130"),
        ({"insn_address": -8}, "program insn_address must be 0 to 4294967296, not -8"),
        ({"arena_bytes": 1 << 33}, "program arena_bytes must be 0 to 4294967296, not 8589934592"),
        ({"attributes": []}, "program attributes must be a JSON object, not []"),
        (
            {"buffers": (Buffer(**BUFFER), Buffer(**{**BUFFER, "address": 3000})), "steps": ()},
            "buffer names must differ, not 'x' twice",
        ),
        ({"buffers": ()}, "host step 'quantize' must use known buffers, not 'input'"),
        ({"steps": (Launch(insn_begin=2, insn_count=5),)}, "launch must end within the 6 instructions, not at 7"),
        (
            {"layers": (Layer(name="l", insn_begin=0, insn_end=7),)},
            "layer 'l' must end within the 6 instructions, not at 7",
        ),
        (
            {"layers": (Layer(name="b", insn_begin=2, insn_end=4), Layer(name="a", insn_begin=0, insn_end=3))},
            "layer 'b' must begin after the layer before it, at 3, not at 2",
        ),
        ({"insn_address": 4088}, "instructions must end within 4096 bytes of memory, not at 4184"),
        ({"uop_address": 4092}, "micro-ops must end within 4096 bytes of memory, not at 4100"),
        ({"arena_bytes": 1024}, "buffer 'output' must end within 1024 bytes of memory, not at 1026"),
        (
            {"segments": (Segment(address=4095, data=b"ab"),)},
            "segment at 4095 must end within 4096 bytes of memory, not at 4097",
        ),
        (
            {"uop_address": 92},
            "micro-ops and instructions must not overlap, not lie at 92 to 100 and 0 to 96",
        ),
        (
            {"buffers": (Buffer(**{**BUFFER, "address": 95}),), "steps": ()},
            "buffer 'x' and instructions must not overlap, not lie at 95 to 99 and 0 to 96",
        ),
        (
            {"buffers": (Buffer(**BUFFER), Buffer(**{**BUFFER, "name": "y", "address": 2051})), "steps": ()},
            "buffer 'y' and buffer 'x' must not overlap, not lie at 2051 to 2055 and 2048 to 2052",
        ),
        (
            {"buffers": (Buffer(**BUFFER), workspace(name="y", address=2050)), "steps": ()},
            "buffer 'y' and buffer 'x' must not overlap, not lie at 2050 to 2054 and 2048 to 2052",
        ),
        (
            {"buffers": (workspace(), Buffer(**{**BUFFER, "name": "y", "address": 2050})), "steps": ()},
            "buffer 'y' and buffer 'x' must not overlap, not lie at 2050 to 2054 and 2048 to 2052",
        ),
        (
            {"segments": (Segment(address=130, data=b"a"),)},
            "segment at 130 and micro-ops must not overlap, not lie at 130 to 131 and 128 to 136",
        ),
        (
            {"segments": (Segment(address=300, data=b"abc"), Segment(address=302, data=b"d"))},
            "segment at 302 and segment at 300 must not overlap, not lie at 302 to 303 and 300 to 303",
        ),
    ],
)
def test_compiled_programs(values: dict[str, Any], message: str) -> None:
    with refusal(message):
        replace(compiled_program(), **values)


def test_a_long_workspace_hides_nothing() -> None:
    # The farthest end counts, not the last one seen.
    buffers = (workspace(shape=(100,), nbytes=100), workspace(name="y", address=2052))
    late = Buffer(**{**BUFFER, "name": "z", "address": 2100})
    with refusal("buffer 'z' and buffer 'x' must not overlap, not lie at 2100 to 2104 and 2048 to 2148"):
        replace(compiled_program(), buffers=(*buffers, late), steps=())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"buffers": (Buffer(**BUFFER),)}, "raw program must have no buffers, not 1"),
        ({"layers": (Layer(name="l", insn_begin=0, insn_end=1),)}, "raw program must have no layers, not 1"),
        ({"uops": bytes(8)}, "raw program must have no uops, not 8"),
        ({"steps": ()}, f"raw program must have {ONLY_STEP}, not ()"),
        (
            {"steps": (Launch(insn_begin=0, insn_count=1),)},
            f"raw program must have {ONLY_STEP}, not (Launch(insn_begin=0, insn_count=1),)",
        ),
        (
            {"insn_address": 4096 + 240},
            "instructions and segment at 4096 must not overlap, not lie at 4336 to 4368 and 4096 to 4352",
        ),
        (
            {"insn_address": (1 << 32) - 16},
            "instructions must end within 4294967296 bytes of memory, not at 4294967312",
        ),
    ],
)
def test_raw_programs(values: dict[str, Any], message: str) -> None:
    with refusal(message):
        replace(raw_program(), **values)


def test_raw_program_without_instructions() -> None:
    with refusal("launch insn_count must be 1 to 4294967296, not 0"):
        Program.raw(config=VTAConfig(), insns=b"")


def parts() -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest without its digest, and all members, of the compiled sample."""
    members = read_container(compiled_program().to_bytes(), (MANIFEST, *BINARIES))
    manifest = json.loads(members[MANIFEST])
    del manifest["digest"]
    return manifest, members


def pack(members: dict[str, bytes], manifest: dict[str, Any]) -> bytes:
    return write_container({**members, MANIFEST: seal(manifest)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "manifest format must be 'vta-program', not 'zip'"),
        ({"version": 2}, "manifest version must be 1, not 2"),
        ({"version": True}, "manifest version must be 1, not True"),
        ({"config": []}, "manifest config must be a JSON object, not []"),
        (
            {"config": {"LOG_BATCH": -1}},
            f"manifest config must be a possible one: {BATCH_RULE}, not -1",
        ),
        ({"config_digest": "0"}, f"config digest must be {compiled_program().config.digest!r}, not '0'"),
        ({"members": {}}, "members must have the key 'insns.bin', which is missing"),
        ({"insn_address": None}, "program insn_address must be an integer, not None"),
        ({"buffers": {}}, "buffers must be a list, not {}"),
        ({"buffers": [None]}, "buffers[0] must be a JSON object, not None"),
        (
            {"buffers": [{"name": "x"}]},
            "buffers[0] must have the key 'role', which is missing",
        ),
        (
            {"buffers": [{"nome": "x"}]},
            "buffers[0] must have the keys name, role, dtype, shape, layout, address, nbytes, not 'nome'",
        ),
        (
            {"buffers": [{**BUFFER, "role": "weight", "layout": None}]},
            "buffers[0] role must be one of input, output, constant, workspace, not 'weight'",
        ),
        ({"steps": [{"kind": "shell"}]}, "steps[0] must be of kind 'launch' or 'host', not 'shell'"),
        ({"steps": ["launch"]}, "steps[0] must be of kind 'launch' or 'host', not None"),
        ({"segments": [{"address": 264, "nbytes": 4}]}, "segments must cover the 21 bytes of 'const.bin', not 4"),
        (
            {"segments": [{"address": 264, "nbytes": 99}]},
            "segments[0] must end within the 21 bytes of 'const.bin', not at 99",
        ),
        ({"tokens_before": {"l2g": 0}}, "tokens_before must have the key 'g2l', which is missing"),
        ({"attributes": None}, "program attributes must be a JSON object, not None"),
        (
            {"hello": 1},
            f"manifest must have the keys {', '.join(KEYS)}, not 'hello'",
        ),
    ],
)
def test_manifests_with_a_correct_digest(changes: dict[str, Any], message: str) -> None:
    manifest, members = parts()
    with refusal(message):
        Program.from_bytes(pack(members, {**manifest, **changes}))


def test_missing_keys() -> None:
    manifest, members = parts()
    for key in set(manifest) - {"format", "version"}:
        rest = {name: value for name, value in manifest.items() if name != key}
        with refusal(f"manifest must have the key {key!r}, which is missing"):
            Program.from_bytes(pack(members, rest))


def test_edited_configuration_shows_both_digests() -> None:
    manifest, members = parts()
    config = replace(compiled_program().config, log_batch=1)
    with refusal(f"config digest must be {config.digest!r}, not {compiled_program().config.digest!r}"):
        Program.from_bytes(pack(members, {**manifest, "config": config.to_dict()}))


def test_hand_edited_manifest_shows_both_digests() -> None:
    _, members = parts()
    edited = members[MANIFEST].replace(b'"macs":64', b'"macs":65')
    changed = replace(
        compiled_program(),
        layers=tuple(replace(layer, macs=65) if layer.macs else layer for layer in compiled_program().layers),
    )
    with refusal(f"manifest digest must be {changed.digest!r}, not {compiled_program().digest!r}"):
        Program.from_bytes(write_container({**members, MANIFEST: edited}))


def test_exchanged_member_shows_both_digests() -> None:
    manifest, members = parts()
    recorded = manifest["members"]["uops.bin"]["sha256"]
    actual = "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc"
    with refusal(f"member 'uops.bin' must have digest {recorded!r}, not {actual!r}"):
        Program.from_bytes(write_container({**members, "uops.bin": bytes(8)}))
    with refusal("member 'uops.bin' must have 8 bytes, not 12"):
        Program.from_bytes(write_container({**members, "uops.bin": bytes(12)}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "manifest cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (b"[]", "manifest must be a JSON object, not []"),
        (b"{}", "manifest format must be 'vta-program', not None"),
        (b'{"a":1,"a":1}', "manifest cannot be read: JSON object must name each key once, not 'a' again"),
        (b'{"a":Infinity}', "manifest cannot be read: JSON number must be finite, not Infinity"),
        (b"[" * 100_000, "manifest cannot be read: JSON must nest at most 200 levels"),
    ],
)
def test_manifests_that_are_none(text: bytes, message: str) -> None:
    _, members = parts()
    with refusal(message):
        Program.from_bytes(write_container({**members, MANIFEST: text}))


def test_other_spelling_of_the_same_program() -> None:
    _, members = parts()
    spaced = members[MANIFEST].replace(b'"macs":64', b'"macs": 64')
    with refusal("program file must be in canonical form, as saved, not rewritten or damaged"):
        Program.from_bytes(write_container({**members, MANIFEST: spaced}))
    with refusal("program file must be in canonical form, as saved, not rewritten or damaged"):
        Program.from_bytes(b"#!" + compiled_program().to_bytes())

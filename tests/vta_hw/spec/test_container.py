"""The archive: an ordinary zip file, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile

import pytest

from vta_hw.spec.container import ContainerError, read_container, write_container

MEMBERS = {"a.json": b"{}", "b.bin": bytes(range(256)) * 3, "c.bin": b""}


def test_zipfile_reads_it() -> None:
    with zipfile.ZipFile(io.BytesIO(write_container(MEMBERS))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == MEMBERS
        first = archive.infolist()[0]
        assert (first.date_time, first.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
        assert first.external_attr >> 16 == 0o100644


def test_bytes_do_not_depend_on_the_standard_library() -> None:
    digest = hashlib.sha256(write_container(MEMBERS)).hexdigest()
    assert digest == "aa353092839a93b4b50cde9e78a3fd33d2fc7dc5af6840f5b39a760255af88ba"


def test_round_trip() -> None:
    assert read_container(write_container(MEMBERS), list(MEMBERS)) == MEMBERS


def test_zip_bomb_is_refused_before_it_unfolds() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(10_000_000))
    message = "archive member 'a.json' must be stored, not compressed or encrypted"
    with pytest.raises(ContainerError, match=f"^{re.escape(message)}$"):
        read_container(stream.getvalue(), ["a.json"])


def test_overlapping_members_are_refused() -> None:
    # Two directory entries for one stored body: the way to a bomb without compression.
    data = bytearray(write_container({"a.bin": bytes(64), "b.bin": bytes(64)}))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = bytes(4)
    with pytest.raises(ContainerError, match=r"^archive must be an intact zip file: "):
        read_container(bytes(data), ["a.bin", "b.bin"])


def test_claimed_size_is_refused() -> None:
    data = bytearray(write_container({"a.bin": bytes(64)}))
    directory = data.index(b"PK\1\2")
    data[directory + 20 : directory + 28] = (1 << 31).to_bytes(4, "little") * 2
    message = f"archive member 'a.bin' must fit {len(data)} bytes of archive, not 2147483648 and 2147483648"
    with pytest.raises(ContainerError, match=f"^{re.escape(message)}$"):
        read_container(bytes(data), ["a.bin"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.json", "b.bin"], "archive member must be one of a.json, b.bin, not 'c.bin'"),
        ([*MEMBERS, "d.bin"], "archive must hold 'd.bin', which is missing"),
    ],
)
def test_members_are_exactly_the_expected_ones(names: list[str], message: str) -> None:
    with pytest.raises(ContainerError, match=f"^{re.escape(message)}$"):
        read_container(write_container(MEMBERS), names)


def test_repeated_member_is_refused() -> None:
    data = write_container({"a.bin": b"1", "b.bin": b"2"}).replace(b"b.bin", b"a.bin")
    with pytest.raises(ContainerError, match=r"^archive must hold each member once, not 'a\.bin' 2 times$"):
        read_container(data, ["a.bin"])


@pytest.mark.parametrize("data", [b"", b"PK", bytes(1000), b"PK\5\6" + bytes(18)])
def test_what_is_no_archive(data: bytes) -> None:
    with pytest.raises(ContainerError, match=r"^archive must "):
        read_container(data, ["a.bin"])

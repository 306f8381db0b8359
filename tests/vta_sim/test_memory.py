"""Sparse memory against a plain array."""

from __future__ import annotations

import numpy as np
import pytest

from vta_sim.memory import Memory


def test_memory_that_was_never_written_reads_as_zero() -> None:
    memory = Memory()
    assert not memory.read(12345, 10000).any()
    assert memory.page_count == 0


@pytest.mark.parametrize("base", [0, (1 << 32) - 70000, 1 << 63, (1 << 64) - (1 << 18)])
def test_random_writes_anywhere_in_64_bits(base: int) -> None:
    rng = np.random.default_rng(3)
    memory = Memory()
    expected = np.zeros(1 << 18, np.uint8)
    for _ in range(300):
        begin, size = int(rng.integers(0, 1 << 17)), int(rng.integers(0, 9000))
        data = rng.integers(0, 256, size).astype(np.uint8)
        memory.write(base + begin, data)
        expected[begin : begin + size] = data
        at = int(rng.integers(0, 1 << 17))
        np.testing.assert_array_equal(memory.read(base + at, 5000), expected[at : at + 5000])
    np.testing.assert_array_equal(memory.read(base, expected.size), expected)


def test_pages_are_counted_and_listed() -> None:
    memory = Memory()
    memory.write((1 << 64) - 1, b"x")
    memory.write(4095, b"ab")
    assert memory.page_count == 3
    assert memory.page_addresses().tolist() == [0, 4096, (1 << 64) - 4096]


def test_the_page_table_grows_past_its_first_size() -> None:
    memory = Memory()
    for page in range(3000):
        memory.write(page << 33, page.to_bytes(2, "little"))
    assert memory.page_count == 3000
    for page in range(0, 3000, 7):
        assert int.from_bytes(bytes(memory.read(page << 33, 2)), "little") == page


def test_every_kind_of_buffer_can_be_written() -> None:
    memory = Memory()
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    for data in (array, array.tobytes(), bytearray(array.tobytes()), memoryview(array.tobytes())):
        memory.write(5, np.zeros(24, np.uint8))
        memory.write(5, data)
        assert memory.read(5, 24).view("<i4").tolist() == [0, 1, 2, 3, 4, 5]
    memory.write(5, array.T)
    assert memory.read(5, 24).view("<i4").tolist() == [0, 3, 1, 4, 2, 5]


def test_a_read_is_a_copy() -> None:
    memory = Memory()
    memory.write(0, b"abc")
    memory.read(0, 3)[:] = 0
    assert bytes(memory.read(0, 3)) == b"abc"


def test_addresses_outside_64_bits_are_refused() -> None:
    memory = Memory()
    with pytest.raises(ValueError, match=r"^Bytes of memory must lie within 0\.\.2\*\*64-1, not 2 at 0xf{16}$"):
        memory.write((1 << 64) - 1, b"ab")
    with pytest.raises(ValueError, match=r"^Bytes of memory must lie within 0\.\.2\*\*64-1, not 1 at -0x1$"):
        memory.read(-1, 1)
    with pytest.raises(ValueError, match=r"^Number of bytes must not be negative, not -1$"):
        memory.read(0, -1)

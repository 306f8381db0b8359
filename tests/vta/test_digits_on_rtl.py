"""The demo network on the RTL in Amaranth's simulator: the bytes of the functional engine, and how long it takes."""

from __future__ import annotations

import numpy as np

from vta.api import compile_model
from vta.demo.data import load_digits, model_bytes
from vta_hw.spec.config import preset

CYCLES = 11_580
"""Of one image, with a memory that answers in the next cycle; 6,052 of them multiply."""


def test_digits_network_has_the_bytes_of_the_functional_engine() -> None:
    digits = load_digits()
    image = digits.inputs(digits.test[:1])
    program = compile_model(model_bytes(), config=preset("sim"), calibration=digits.inputs(digits.train[:64]))
    expected = program.run(image, engine="functional")
    on_rtl = program.run(image, engine="amaranth")
    np.testing.assert_array_equal(np.asarray(on_rtl), np.asarray(expected))
    counters = program.statistics.counters
    assert counters["gemm_uops"] == 5_028
    assert counters["cycle_count"] == CYCLES

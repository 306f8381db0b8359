"""The emitted Verilog in Icarus and Verilator, with AXI models at both ports, against the functional simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.vta_hw.rtl.cocotb import build
from tests.vta_hw.rtl.cocotb.cases import product_launch, random_launches, write_cases
from tests.vta_hw.rtl.cocotb.launches import Launch, Launches
from tests.vta_hw.rtl.cocotb.recording import record
from vta.api import compile_model, to_stored
from vta.demo.data import load_digits, model_bytes
from vta.engines import Engine, host_loader
from vta_hw.spec.config import VTAConfig, preset

TINY = preset("tiny")

CONFIGS = {
    "tiny": TINY,
    "wide": replace(TINY, log_bus_width=7, log_batch=1, log_inp_buff_size=9, log_acc_buff_size=11),
    "extended": replace(TINY, isa="extended", overlap=True, multiplier="packed", log_address_width=6),
}

DEFAULT = preset("sim")
BUILT = CONFIGS | {"default": DEFAULT}

SCENARIOS = (
    "random_programs_on_model",
    "random_programs_on_slave",
    "bus_errors_on_model",
    "bus_errors_on_slave",
    "deadlock",
    "soft_reset",
    "hard_reset",
    "interrupt",
    "register_port",
)

Builder = Callable[[str, str], build.Simulation]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Builds a machine of `BUILT` for a simulator, once; skips the test where the simulator is missing."""
    done: dict[tuple[str, str], build.Simulation] = {}

    def get(name: str, simulator: str) -> build.Simulation:
        build.need(simulator)
        if (name, simulator) not in done:
            runtime = next((other.folder for (_, same), other in done.items() if same == simulator), None)
            folder = tmp_path_factory.mktemp(f"{name}_{simulator}")
            # Verilator has no unknown values.
            change = build.with_unknown_collisions if simulator == "icarus" else None
            with pytest.MonkeyPatch.context() as patch:
                done[name, simulator] = build.build(
                    BUILT[name], simulator, folder, patch, change=change, runtime=runtime
                )
        return done[name, simulator]

    return get


@pytest.mark.parametrize("simulator", build.SIMULATORS)
@pytest.mark.parametrize("name", CONFIGS)
def test_scenarios(name: str, simulator: str, built: Builder, tmp_path: Path) -> None:
    simulation = built(name, simulator)
    write_cases(CONFIGS[name], tmp_path)
    simulation.run(SCENARIOS, cases=tmp_path)


def test_the_digits_network(built: Builder, tmp_path: Path) -> None:
    """A run of the demo network on the default machine, recorded from a session: 192 instructions, 16,000 cycles."""
    simulation = built("default", "verilator")
    digits_launches(DEFAULT).save(tmp_path / "digits.npz")
    simulation.run(["replay"], seed=3, launches=tmp_path / "digits.npz")


def digits_launches(config: VTAConfig) -> Launches:
    """The launches in which the demo network sees its first held-out images."""
    digits = load_digits()
    network = compile_model(model_bytes(), config=config, calibration=digits.inputs(digits.train[:64]))
    (port,) = network.inputs
    images = {port.name: to_stored(port, digits.inputs(digits.test[: network.batch]))}
    return record(network.program, images, host_loader(Engine.FUNCTIONAL))


def with_wrong_byte(launch: Launch) -> Launch:
    """Expects one bit of memory to be other than it will be."""
    assert launch.stored is not None
    (address, page), *_ = launch.stored.items()
    wrong = page ^ np.eye(1, len(page), 3, np.uint8)[0]
    return replace(launch, stored={**launch.stored, address: wrong})


def with_wrong_register(launch: Launch) -> Launch:
    """Expects one more micro-op than there will be."""
    return replace(launch, registers={**launch.registers, "gemm_uops": launch.registers["gemm_uops"] + 1})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (with_wrong_byte, "launch 0: 1 bytes from 0x6003 must be"),
        (with_wrong_register, "launch 0: gemm_uops must be 6, not 5"),
    ],
)
def test_a_wrong_expectation_is_noticed(
    damage: Callable[[Launch], Launch],
    sentence: str,
    built: Builder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    simulation = built("tiny", "icarus")
    launches = product_launch(TINY)
    replace(launches, launches=tuple(map(damage, launches.launches))).save(tmp_path / "wrong.npz")
    with pytest.raises(SystemExit):
        simulation.run(["replay"], launches=tmp_path / "wrong.npz")
    assert sentence in capfd.readouterr().out


def without_new_words(emitted: str) -> str:
    """The same, with memories that do not keep their promise of the new word."""
    promise = "if (TRANSPARENT[reader]) begin"
    assert emitted.count(promise) == 1
    return build.with_unknown_collisions(emitted).replace(promise, "if (0) begin")


def test_an_unknown_word_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    build.need("icarus")
    simulation = build.build(TINY, "icarus", tmp_path, monkeypatch, change=without_new_words)
    random_launches(TINY, range(1), 16, clear=False).save(tmp_path / "random.npz")
    with pytest.raises(SystemExit):
        simulation.run(["replay"], launches=tmp_path / "random.npz")
    assert "non-0/1 values" in capfd.readouterr().out

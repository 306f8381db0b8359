"""Random configurations, random quantised graphs, and the comparison of every answer to them.

A seed gives a configuration, a graph and its inputs, always the same. `check` compiles the graph for the accelerator
and for the CPU, runs both, and compares them with each other, bytes of padding included, and with the numpy reference.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from compiler.driver import Target, compile_graph
from compiler.errors import LoweringError
from compiler.graph.evaluate import evaluate
from compiler.graph.ir import Array, Graph
from compiler.graph.ops.qelementwise import Dequantize
from compiler.graph.passes.layout import AssignLayouts
from runtime.devices.functional import FunctionalDevice
from runtime.session import Session
from tests.random_layers import (
    Draw,
    add,
    attention,
    chain,
    convolution,
    dense,
    extreme,
    gate,
    given,
    movements,
    pool,
    shape_of,
)
from vta.api import from_stored, port_of, to_stored
from vta.engines import Engine, host_loader, open_session
from vta_hw.spec.config import ConfigError, VTAConfig
from vta_hw.spec.program import Program

WEIGHT_WIDTHS, INPUT_WIDTHS = [3, 3, 3, 3, 4, 2], [3] * 16 + [4, 2]
"""log2 of the bits of weights and activations: nearly always 8. 4 and 16 bits need more work on the host."""

MOST_BLOCKS = 8
"""Of channels, so that small tiles do not mean a hundred thousand instructions."""

LAID_OUT = 0.8
"""How often the inputs lie as the accelerator wants them; otherwise the host has to move them, which costs time."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One graph on one configuration, with inputs."""

    seed: int
    config: VTAConfig
    graph: Graph
    inputs: Mapping[str, Array]

    def __str__(self) -> str:
        types = self.graph.types
        nodes = [f"{node.op} on {', '.join(str(types[name]) for name in node.inputs)}" for node in self.graph.nodes]
        return f"seed {self.seed}: {self.config.name} bus {self.config.bus_bits}: {'; '.join(nodes)}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """problems: what differs, nothing if all answers agree. refusal: the sentence, if the configuration is too small.

    values: how many different numbers the outputs hold; a case of few distinguishes little.
    """

    problems: tuple[str, ...] = ()
    refusal: str | None = None
    values: int = 0


def random_config(r: random.Random) -> VTAConfig:
    """Any valid configuration: buffers from the smallest, which hold two elements, to the default ones."""
    while True:
        batch, block_in = r.choice([0, 0, 0, 1, 2]), r.randint(1, 5)
        block_out = r.choice([block_in, r.randint(1, 5)])
        inp_width, wgt_width = r.choice(INPUT_WIDTHS), r.choice(WEIGHT_WIDTHS)
        try:
            return VTAConfig(
                log_inp_width=inp_width,
                log_wgt_width=wgt_width,
                log_batch=batch,
                log_block_in=block_in,
                log_block_out=block_out,
                log_uop_buff_size=2 + r.choice([1, 2, 3, 6, 10, 13]),
                log_inp_buff_size=batch + block_in + inp_width - 3 + r.choice([1, 2, 3, 4, 6, 8, 11]),
                log_wgt_buff_size=block_in + block_out + wgt_width - 3 + r.choice([1, 2, 3, 4, 6, 8, 10]),
                log_acc_buff_size=batch + block_out + 2 + r.choice([1, 2, 3, 4, 6, 8, 11]),
                log_bus_width=r.choice([6, 6, 7, 8, 9]),
            )
        except ConfigError:
            continue  # buffers too deep for the instructions of such blocks


def random_layer(seed: int) -> Case:
    """A graph of one op."""
    d, config = _start(seed)
    output = d.r.choice([convolution, convolution, convolution, dense, pool, add])(d)
    return _finish(seed, d, config, (output,))


def random_extreme(seed: int) -> Case:
    """The larger or smaller of two products."""
    d, config = _start(seed)
    return _finish(seed, d, config, (extreme(d),))


def random_given(seed: int) -> Case:
    """An op as integers that a model gives ask for it."""
    d, config = _start(seed)
    return _finish(seed, d, config, (given(d),))


def random_network(seed: int) -> Case:
    """A graph of several layers, with residual branches; outputs are what nothing reads and some of the rest."""
    d, config = _start(seed)
    made = chain(d, d.r.randint(2, 5))
    read = {name for node in d.nodes for name in node.inputs}
    outputs = tuple(name for name in made if name not in read or d.r.random() < 0.2)
    return _finish(seed, d, config, outputs)


def random_attention(seed: int) -> Case:
    """Products of activations, on a machine that has them: 8 bits, one image, square tiles."""
    d, config = _start(seed)
    block = max(1, min(config.log_block_in, config.log_block_out))
    depths = {  # as deep in elements as they were
        "log_inp_buff_size": config.inp_depth.bit_length() - 1 + block,
        "log_wgt_buff_size": config.wgt_depth.bit_length() - 1 + 2 * block,
        "log_acc_buff_size": config.acc_depth.bit_length() - 1 + block + 2,
    }
    try:
        config = replace(
            config, log_batch=0, log_block_in=block, log_block_out=block, log_inp_width=3, log_wgt_width=3, **depths
        )
    except ConfigError:
        config = VTAConfig(isa=config.isa, overlap=config.overlap)
    d.inp_bits = d.wgt_bits = 8
    outputs = (gate(d),) if seed % 4 == 0 else attention(d, config.block_in)
    return _finish(seed, d, config, outputs)


def random_movements(seed: int) -> Case:
    """Concatenations, slices and images made larger, on a machine that reads the tiles that it makes."""
    d, config = _start(seed)
    if config.batch > 1 and config.block_in != config.block_out:
        config = VTAConfig(isa=config.isa, overlap=config.overlap)
        d.inp_bits = d.wgt_bits = 8
    return _finish(seed, d, config, movements(d, max(config.block_in, config.block_out)))


def _start(seed: int) -> tuple[Draw, VTAConfig]:
    r = random.Random(seed)
    config = random_config(r)
    options = random.Random(f"options of {seed}")
    config = replace(config, isa=options.choice(["tvm", "tvm", "extended"]), overlap=options.random() < 0.3)
    if config.is_extended:  # a channel of REQUANT has a scale beside what it rescales: two elements are too few
        least = config.log_batch + config.log_block_out + 2 + 3
        config = replace(config, log_acc_buff_size=max(least, config.log_acc_buff_size))
    draw = Draw(
        r,
        np.random.default_rng(seed),
        inp_bits=config.inp_bits,
        wgt_bits=config.wgt_bits,
        most_channels=MOST_BLOCKS * min(config.block_in, config.block_out),
        extended=config.is_extended,
    )
    return draw, config


def _finish(seed: int, d: Draw, config: VTAConfig, outputs: tuple[str, ...]) -> Case:
    if config.inp_bits == 4:  # leave the graph as float numbers, as those of a network do: numpy has no int4
        outputs = tuple(d.apply(Dequantize(scale=1.0), name) for name in outputs)
    graph = d.graph(*outputs)
    if config.inp_bits != 4 and d.r.random() < LAID_OUT:
        graph = laid_out(graph, config)
    inputs = {value.name: d.integers(config.inp_bits, value.type.shape) for value in graph.inputs}
    return Case(seed=seed, config=config, graph=graph, inputs=inputs)


def laid_out(graph: Graph, config: VTAConfig) -> Graph:
    """`graph` with its inputs stored as their first reader wants them."""
    step = AssignLayouts(config=config)
    layouts = dict(graph.layouts)
    for node in graph.nodes:
        for position, name in enumerate(node.inputs):
            wanted = step.wanted(node, position, graph.types[name].shape)
            if wanted is not None and any(value.name == name for value in graph.inputs):
                layouts.setdefault(name, wanted)
    return replace(graph, layouts=layouts)


def check(case: Case) -> Outcome:
    """Compile and run `case` in every way. A refusal for lack of room is an outcome, any other error is raised."""
    try:
        accelerated = compile_graph(case.graph, case.config, target=Target.VTA)
    except LoweringError as error:
        return Outcome(refusal=str(error))
    on_cpu = compile_graph(case.graph, case.config, target=Target.CPU)
    # Scratchpads that start with a pattern show what reads an element that was never written.
    device = FunctionalDevice(case.config, poison=True)
    session = Session(device, accelerated, host_loader(Engine.FUNCTIONAL))
    functional = session.run(stored_inputs(accelerated, case.inputs))
    llvm = open_session(on_cpu, Engine.LLVM).run(stored_inputs(on_cpu, case.inputs))
    reference = evaluate(case.graph, case.inputs)
    problems = []
    for buffer, other in zip(accelerated.outputs, on_cpu.outputs, strict=True):
        name = buffer.name
        logical = from_stored(port_of(buffer), functional[name])
        for what, answers in (
            ("VTA and the reference", (logical, reference[name])),
            ("VTA and LLVM", (logical, from_stored(port_of(other), llvm[name]))),
        ):
            if not np.array_equal(*answers):
                problems.append(f"{what} differ in {np.count_nonzero(answers[0] != answers[1])} of {name!r}")
    values = len(np.unique(np.concatenate([array.ravel() for array in reference.values()])))
    return Outcome(problems=tuple(problems), values=values)


def stored_inputs(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Logical arrays as the input buffers of `program` store them."""
    return {buffer.name: to_stored(port_of(buffer), inputs[buffer.name]) for buffer in program.inputs}


def describe(case: Case) -> str:
    """For a failure: the case, and the shapes of its outputs."""
    return f"{case} -> {', '.join(f'{name} {shape_of(case.graph, name)}' for name in case.graph.outputs)}"

"""The ``vta`` group."""

from __future__ import annotations

import click

from vta.cli.bench import bench_command
from vta.cli.check import check_command
from vta.cli.compare import compare_command
from vta.cli.compile import compile_command
from vta.cli.config import config_command
from vta.cli.demo import demo_command
from vta.cli.disasm import disasm_command
from vta.cli.execute import exec_command
from vta.cli.object import object_command
from vta.cli.profile import profile_command
from vta.cli.run import run_command
from vta.cli.verilog import verilog_command


class OrderedGroup(click.Group):
    """Lists its commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("vta", cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vta-toolkit", prog_name="vta")
def root() -> None:
    """Compile neural networks for VTA, an open deep-learning accelerator, and run them.

    Start with `vta demo`; `vta COMMAND --help` shows each command by example.
    """


for _command in (
    demo_command,
    compile_command,
    object_command,
    run_command,
    exec_command,
    check_command,
    profile_command,
    compare_command,
    bench_command,
    disasm_command,
    config_command,
    verilog_command,
):
    root.add_command(_command)

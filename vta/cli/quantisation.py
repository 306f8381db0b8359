"""How a float model becomes integers: the options of commands that compile one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vta.cli.errors import CommandError
from vta.cli.output import Activity
from vta.cli.params import one_of, reals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from compiler.graph.quantize.values import QuantizeOptions

    Inputs = NDArray[np.generic] | dict[str, NDArray[np.generic]]

_OPTIONS = (
    click.option(
        "--calibrate",
        type=click.Path(path_type=Path),
        metavar="FILE|FOLDER",
        help="Inputs of a float model (.npy, or .npz by input name), or a folder of images.",
    ),
    click.option("--mean", type=reals("--mean"), metavar="X[,X,X]", help="Of the pixels, 0 to 1; 0 by default."),
    click.option("--std", type=reals("--std"), metavar="X[,X,X]", help="Their standard deviation; 1 by default."),
    click.option(
        "--ranges",
        type=one_of("Ranges", ("min-max", "percentile", "mse", "entropy")),
        metavar="METHOD",
        default="mse",
        show_default=True,
        help="How the range of an activation is read from its values: min-max, percentile, mse or entropy.",
    ),
    click.option("--powers-of-two", is_flag=True, help="Scale by shifts alone, for machines without MUL."),
    click.option("--no-equalise", is_flag=True, help="Leave channels between layers as far apart as they are."),
)


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """What the options say. Raises CommandError for some that have no meaning together."""

    calibrate: Path | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    ranges: str
    powers_of_two: bool
    no_equalise: bool

    def __post_init__(self) -> None:
        if (self.mean or self.std) and (self.calibrate is None or not self.calibrate.is_dir()):
            raise CommandError("--mean and --std must be given with --calibrate FOLDER, for whose images they are")

    @property
    def options(self) -> QuantizeOptions:
        from compiler.graph.quantize.calibrate import Calibration
        from compiler.graph.quantize.values import QuantizeOptions

        return QuantizeOptions(
            calibration=Calibration(self.ranges), multiply=not self.powers_of_two, equalise=not self.no_equalise
        )

    def read(self, model: Path, activity: Activity) -> Inputs | None:
        """The calibration inputs of that model; None if none are given."""
        from vta.cli.arrays import read_arrays

        if self.calibrate is None:
            return None
        return self._photographs(model, activity) if self.calibrate.is_dir() else read_arrays(self.calibrate)

    def _photographs(self, model: Path, activity: Activity) -> NDArray[np.float32]:
        """The images of the folder, in the size of the model's only input."""
        from compiler.frontend.onnx import load_onnx
        from vta.images import read_folder

        assert self.calibrate is not None
        inputs = load_onnx(model).inputs
        if len(inputs) != 1:
            raise CommandError(f"--calibrate must be an .npz file for a model of {len(inputs)} inputs, not a folder")
        try:
            return read_folder(
                self.calibrate,
                inputs[0].type.shape,
                mean=self.mean or (0.0,),
                std=self.std or (1.0,),
                progress=lambda done, total: activity.step("Reading images", done, total),
            )
        except ImportError as error:
            raise CommandError(str(error)) from None


NAMES = tuple(field.name for field in fields(Quantisation))


def quantisation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: these options; the command gets them as `quantisation`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in NAMES}
        return function(*args, quantisation=Quantisation(**given), **kwargs)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered

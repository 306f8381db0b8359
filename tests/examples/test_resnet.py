"""The example of one layer of ResNet-18: what it compiles is profiled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vta_hw.spec.program import Program

ROOT = Path(__file__).parents[2]


def test_a_small_layer_is_compiled_and_profiled(tmp_path: Path) -> None:
    given = ["--size", "8", "--inputs", "16", "--outputs", "32", "--stride", "2", "-o", str(tmp_path / "layer.vta")]
    script = ROOT / "examples" / "resnet" / "layer.py"
    made = subprocess.run([sys.executable, str(script), *given], cwd=ROOT, capture_output=True, text=True, check=True)
    macs = 4 * 4 * 32 * 16 * 9
    assert made.stdout.startswith(f"{tmp_path / 'layer.vta'}: {macs:,} MACs, ")
    assert [layer.macs for layer in Program.load(tmp_path / "layer.vta").layers] == [macs]
    command = [sys.executable, "-m", "vta", "profile", str(tmp_path / "layer.vta"), "--json"]
    figures = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    (layer,) = (row for row in figures["layers"] if row["macs"])
    assert layer["macs"] == macs
    assert layer["cycles"] > layer["compute_bound"] == macs // 256

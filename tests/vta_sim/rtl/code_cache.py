"""Where tests keep the machine code of compiled machines, which takes seconds to make."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CODE_CACHE: Final = Path(__file__).parent / "__pycache__"

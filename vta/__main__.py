"""``python -m vta`` is the ``vta`` program."""

from __future__ import annotations

from vta.cli import main

if __name__ == "__main__":
    main()

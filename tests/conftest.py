"""Settings shared by all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples on every machine and every run; `make fuzz` is where new ones are tried.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,  # the first example pays for numba's and LLVM's compilation
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

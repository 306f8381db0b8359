"""Implementations of `runtime.device.Device`, one module per kind."""

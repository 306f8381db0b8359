"""Devices that run VTA programs, and the session that drives any of them.

Needs `vta_hw.spec` and numpy only; `runtime.devices` adds one module per kind of device.
"""

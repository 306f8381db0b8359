"""What can go wrong between a program and a device."""

from __future__ import annotations


class RunError(Exception):
    """Base of this package's errors; the message is one sentence."""


class DeviceError(RunError):
    """The device refused a request: address, size, order of calls."""


class DeviceTimeout(DeviceError):
    """The device had not finished when the caller's patience ended."""


class SessionError(RunError):
    """Program, inputs and device do not fit together."""

"""One piece of work on a thread of its own, so that whoever waits for it can lose patience."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Runs `work` at once. The thread never keeps the process alive."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finished(self, timeout: float | None) -> bool:
        """Whether the work is done within `timeout` seconds (None: wait for ever)."""
        self._thread.join(None if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        return not self._thread.is_alive()

    def result(self) -> T:
        """What finished work returned, or its exception."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread by result()
            self._error = error

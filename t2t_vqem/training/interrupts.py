"""SIGTERM and SIGINT: finish the call in flight, save, go."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from absl import logging


class Interrupts:
    """While it is entered, remembers the signal that asks the process to end, instead of dying of it.

    A second signal is obeyed at once. Outside the main thread Python allows no handlers, and it does nothing.

    Attributes:
      received: the signal's number, or None.
    """

    def __init__(self):
        self.received: int | None = None
        self._idle = False

    def __enter__(self) -> "Interrupts":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    @contextlib.contextmanager
    def idle(self, alone: bool) -> Iterator[None]:
        """Inside, nothing is lost by leaving: a signal ends a process that works `alone` at once."""
        self._idle = alone
        try:
            self._leave_if_idle()
            yield
        finally:
            self._idle = False

    @property
    def exit_status(self) -> int:
        """The status a shell gives a process that the signal ended: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.received

    def _handle(self, number: int, frame: object) -> None:
        self.received = number
        self._restore()
        logging.info("%s: finishing the call in flight", signal.Signals(number).name)
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._idle and self.received is not None:
            raise SystemExit(self.exit_status)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

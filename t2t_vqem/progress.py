"""A word now and then of how far a long loop has come, and how long the rest will take."""

import math
import time

from absl import logging

_REPORT_SECONDS = 10.0


class Progress:
    """Counts what a loop has done and logs it every ten seconds; what is reported in the end is its user's choice."""

    def __init__(self, what: str, total: int, unit: str):
        """Starts the clock; `what` begins each line, `unit` names in the plural what is counted."""
        self._what, self._total, self._unit = what, total, unit
        self._counted = self._made = 0
        self._start = self._reported = time.monotonic()

    def kept(self, count: int) -> None:
        """Counts what was there already, which says nothing about the rate."""
        self._counted += count

    def made(self, count: int = 1) -> None:
        """Counts what was made now."""
        self._counted += count
        self._made += count
        if self._counted < self._total and time.monotonic() - self._reported >= _REPORT_SECONDS:
            self.report()

    def report(self) -> None:
        """Logs at once."""
        self._reported = time.monotonic()
        rate = self._made / max(self._reported - self._start, 1e-9)
        left = (
            (self._total - self._counted) / rate
            if rate
            else 0.0
            if self._counted >= self._total
            else math.inf
        )
        speed = f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"
        logging.info(
            "%s: %d of %d %s, %s %s/s, ETA %s",
            self._what, self._counted, self._total, self._unit, speed, self._unit, clock(left),
        )  # fmt: skip


def clock(seconds: float) -> str:
    """Returns seconds as h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

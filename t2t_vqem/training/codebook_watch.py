"""What training says of its codebooks from log to log, and a word when one collapses."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from t2t_vqem.bottlenecks import movement
from t2t_vqem.bottlenecks.bottleneck import Bottleneck

_MOST_FOLLOWED = 4096  # codes whose places are kept from log to log


class CodebookWatch:
    """Looks at a model's codebooks now and then; between two looks it keeps where the codes were."""

    def __init__(self, bottlenecks: Mapping[str, Bottleneck], *, alarm: float, quiet_steps: int):
        """Looks at nothing yet.

        Args:
          bottlenecks: by name.
          alarm: the least share of the codes that is to be live; 0 gives no alarm.
          quiet_steps: steps at the start without an alarm, while codes are born and find their places.
        """
        self._bottlenecks = bottlenecks
        self._alarm, self._quiet_steps = alarm, quiet_steps
        self._places: dict[str, np.ndarray] = {}
        self._warned: set[str] = set()

    def look(self, step: int) -> dict[str, dict[str, np.ndarray | tf.Tensor | float]]:
        """Returns of each codebook, by name: its `usage`, `perplexity_per_code`, `movement` and `alarm`.

        `movement` is the mean way of a code since the last look (`movement.moved`), and is not there at the first;
        of a very large codebook it is that of codes spread evenly over it. `alarm` is 1 while fewer codes are live
        than wanted, else 0, and is not there if none is wanted; the log is told once, and again only after the
        codebook had recovered.
        """
        found = {}
        for name, bottleneck in self._bottlenecks.items():
            figures = dict(bottleneck.usage())
            figures["perplexity_per_code"] = figures["perplexity"] / bottleneck.num_codes
            places = movement.places(bottleneck, _MOST_FOLLOWED)
            if name in self._places:
                figures["movement"] = float(movement.moved(self._places[name], places).mean())
            self._places[name] = places
            if self._alarm:
                used = float(tf.reduce_sum(figures["counts"])) > 0  # before the first birth no code is
                live = float(figures["live_codes"])
                low = used and step >= self._quiet_steps and live < self._alarm * bottleneck.num_codes
                figures["alarm"] = float(low)
                self._tell(step, name, low, live, bottleneck.num_codes)
            found[name] = figures
        return found

    def _tell(self, step: int, name: str, low: bool, live: float, num_codes: int) -> None:
        if low and name not in self._warned:
            logging.warning(
                "step %d: the codebook %s collapses: %.0f of %d codes are live, under train.live_codes_alarm = %g "
                "of them; a lower learning rate may help or, where codes are revived, a higher "
                "codebook.revival_threshold",
                step, name, live, num_codes, self._alarm,
            )  # fmt: skip
        (self._warned.add if low else self._warned.discard)(name)

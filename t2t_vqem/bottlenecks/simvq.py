"""`simvq`: a frozen random codebook behind one learnt linear map (Zhu et al., arXiv 2411.02038).

Every code moves whenever the map does, used or not: none can die of neglect.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.codebook import scaled
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.usage import Usage
from t2t_vqem.bottlenecks.vector import VectorQuantiser


@registry.bottlenecks.register("simvq")
class SimVQ(VectorQuantiser):
    """Each position takes its nearest code; the codes' map learns by the gradient of the codebook loss.

    The model's own optimizer trains the map. Of the settings, start and revival of codes do not apply.
    """

    def make_codebook(self, size: int) -> Usage:
        return LinearCodebook(self.num_codes, size, self.settings)


class LinearCodebook(Usage):
    """codes = frozen @ map, both float32; the map starts as the identity."""

    learns_by_gradient = True

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings):
        super().__init__(num_codes, settings)
        self.dim = dim
        self.frozen = self._state("frozen", (num_codes, dim), self._random)
        self.map = self.add_weight(
            name="map", shape=(dim, dim), initializer=keras.initializers.Identity(), autocast=False
        )

    def _random(self, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
        return scaled(keras.random.normal(shape, dtype=dtype), self.settings.norm or 1.0)

    def places(self) -> tf.Tensor:
        """Returns the codes [num_codes, dim]."""
        places = tf.matmul(self.frozen, self.map)
        return scaled(places, self.settings.norm) if self.settings.cosine else places

    def born(self) -> tf.Tensor:
        """Returns bool [num_codes]: every code has a place."""
        return tf.ones([self.num_codes], tf.bool)

    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns [..., dim] for `codes` int [...]."""
        return tf.gather(self.places(), codes)

    def statistics(
        self, x: tf.Tensor, samples: tf.Tensor, mask: tf.Tensor, draws: tf.Tensor, positions: int | tf.Tensor
    ) -> Mapping[str, tf.Tensor]:
        """As `Codebook.statistics`; but only usage is counted."""
        del x, draws, positions
        return self.counted(samples, mask)

    def settle(self) -> None:
        """The mean of several maps is a map."""

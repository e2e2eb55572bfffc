"""What all bottlenecks with a codebook share: an E-step over the nearest codes; the codebook decides how codes move."""

from collections.abc import Mapping

import tensorflow as tf

from t2t_vqem.bottlenecks import membership
from t2t_vqem.bottlenecks.bottleneck import Bottleneck, BottleneckOutput, DrawnCodes, Positions, projection
from t2t_vqem.bottlenecks.codebook import Codebook, scaled
from t2t_vqem.bottlenecks.estimator import ESTIMATORS
from t2t_vqem.bottlenecks.posterior import negative_distances, posterior
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Draws, Training
from t2t_vqem.fusion import recomputed


class VectorQuantiser(Bottleneck):
    """Each position takes its nearest code, or the mean of `num_samples` codes drawn from its posterior.

    Attributes:
      num_samples: m; None takes the nearest.
    """

    takes_prior = True
    num_samples: int | None = None

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings | None = None):
        """Makes a codebook of `settings`, those of the configuration if None.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(num_codes, dim, settings)
        self.project_in = self.project_out = None
        size = dim
        if self.settings.code_dim is not None:
            size = self.settings.code_dim
            self.project_in = projection(dim, size, "project_in")
            self.project_out = projection(size, dim, "project_out")
        self.codebook = self.make_codebook(size)

    @property
    def stochastic(self) -> bool:
        return self.num_samples is not None

    def make_codebook(self, size: int) -> Codebook:
        """Returns the codebook, its codes of `size` numbers; called once."""
        return Codebook(self.num_codes, size, self.settings)

    def e_step(
        self,
        x: tf.Tensor,
        mask: tf.Tensor | None,
        training: Training | None = None,
        log_prior: tf.Tensor | None = None,
    ) -> BottleneckOutput:
        """See Bottleneck. Until a code is born the encodings pass through, and the codes are 0.

        `log_prior` float32 [batch, ..., num_codes], up to a constant a position, stands in for the uniform prior.

        Metrics: `effective_codes`, exp(entropy of the posterior), between 1 and K; `quantization_error`,
        |x - quantized|^2 / |x|^2. Both also speak of the warm-up, where the decoder does not read the codes.
        """
        settings, book = self.settings, self.codebook
        positions = Positions(x, mask)
        x = self._projected(positions)
        fixed = tf.stop_gradient(scaled(x, settings.norm))

        places, born, temperature = book.places(), book.born(), settings.temperature_at(training)
        drawn = training is not None and self.stochastic
        draws = positions.uniform(training, self.num_samples) if drawn else None
        if log_prior is not None:
            log_prior = tf.reshape(log_prior, [-1, self.num_codes])
        found = posterior(fixed, places, born, temperature, draws, log_prior)
        active = positions.keep & tf.reduce_any(born)
        codes = tf.where(active, found.codes, 0)
        samples = tf.where(active[:, None], found.samples, 0)
        statistics = {}
        if training is not None:
            statistics = book.statistics(
                fixed,
                samples,
                positions.keep,
                positions.uniform(training),
                positions.of_global_batch(training),
            )
        warmed_up = tf.constant(True) if training is None else training.step >= settings.warmup_steps
        # After the statistics: `fixed` is done with, and what is read, as large, can take its place.
        quantized, squared, norm2 = _read(
            x,
            samples,
            active,
            places,
            warmed_up,
            settings.estimator,
            settings.norm,
            tuple(statistics.values()),
        )
        loss = squared * (settings.beta / book.dim)
        if book.learns_by_gradient:
            missed = tf.where(active[:, None], fixed - membership.means(samples, places), 0.0)
            loss += tf.reduce_sum(tf.square(missed), axis=-1) / book.dim
        if settings.entropy_weight:
            entropies = self._entropies(scaled(x, settings.norm), temperature)
            loss += settings.entropy_weight * tf.where(active, entropies, 0.0)
        if training is not None:
            loss = tf.where(warmed_up, loss, 0.0)
        if self.project_out is not None:
            quantized = self.project_out(quantized)
        error = tf.math.divide_no_nan(tf.stop_gradient(squared), norm2)
        return BottleneckOutput(
            quantized=positions.restore(quantized, cast=True),
            codes=positions.restore(codes[:, None]),
            samples=positions.restore(samples[:, None, :]),
            loss=positions.term(loss),
            statistics=statistics,
            metrics={
                "effective_codes": positions.term(found.effective_codes, active),
                "quantization_error": positions.term(error, active),
            },
        )

    def draw(self, x: tf.Tensor, draws: Draws) -> DrawnCodes:
        if not self.stochastic:
            return super().draw(x, draws)
        positions, book = Positions(x, None), self.codebook
        fixed = tf.stop_gradient(scaled(self._projected(positions), self.settings.norm))
        born, uniform = book.born(), positions.uniform(draws, 1)
        found = posterior(fixed, book.places(), born, self.settings.temperature_at(None), uniform)
        active = tf.reduce_any(born)
        return DrawnCodes(
            positions.restore(tf.where(active, found.samples, 0)),
            positions.restore(tf.where(active, tf.math.log(found.effective_codes), 0.0)[:, None]),
        )

    def _projected(self, positions: Positions) -> tf.Tensor:
        """Returns the encodings in the codes' own space, float32 [positions, size of a code]."""
        if self.project_in is None:
            return positions.x
        return positions.zero_padding(self.project_in(positions.x))

    def _entropies(self, x: tf.Tensor, temperature: tf.Tensor | float) -> tf.Tensor:
        """Returns H(posterior) + sum of posterior * log(usage) of each position, float32 [positions].

        Summed over positions its gradient is that of H(posterior) - H(mean posterior), where the mean is the moving
        average of the codes' usage: so it adds over replicas and micro-batches, as an entropy of a mean does not.
        """
        book = self.codebook
        logits = negative_distances(x, book.places(), book.born()) / temperature
        log_posterior = tf.nn.log_softmax(logits)
        return tf.reduce_sum(tf.exp(log_posterior) * (book.log_usage() - log_posterior), axis=-1)

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        self.codebook.m_step(statistics)

    def settle(self) -> None:
        self.codebook.settle()

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        embedded = self.codebook.embed(codes)
        return embedded if self.project_out is None else self.project_out(embedded)

    def usage(self) -> dict[str, tf.Tensor]:
        return self.codebook.usage()


@recomputed(rows=3, kinds=(tf.float32, tf.float32, tf.float32))
def _read(
    x: tf.Tensor,
    samples: tf.Tensor,
    active: tf.Tensor,
    places: tf.Tensor,
    warmed_up: tf.Tensor,
    estimator: str,
    norm: float | None,
    after: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns what the decoder reads [positions, dim], its squared distance from the scaled `x` and that one's |x|^2.

    The decoder reads the mean of the `samples`' `places`. Where a position is not `active` no code is there to read;
    until `warmed_up` none is read. The distance is that of the code even then. Nothing happens before `after` is there.
    """
    x = scaled(x, norm)
    fixed = tf.stop_gradient(x)
    nearest = tf.where(active[:, None], membership.means(samples, places), fixed)
    quantized = tf.where(warmed_up, ESTIMATORS[estimator](x, nearest), x)
    squared = tf.reduce_sum(tf.square(x - nearest), axis=-1)
    return quantized, squared, tf.reduce_sum(tf.square(fixed), axis=-1)

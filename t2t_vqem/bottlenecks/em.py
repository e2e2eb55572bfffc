"""Vector quantisation by expectation maximisation: `hard_em` and `soft_em`; Roy et al., arXiv 1805.11063.

Both read the posterior P(code | x) ~ exp(-|x - code|^2 / temperature). Hard EM takes its mode, soft EM draws
m samples of it; everything else is shared, so that one name compares them under equal conditions.
"""

from t2t_vqem import registry
from t2t_vqem.bottlenecks.checks import require_whole
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.vector import VectorQuantiser


@registry.bottlenecks.register("hard_em")
class HardEM(VectorQuantiser):
    """Each position takes its nearest code; codes are moving averages of the positions that took them."""


@registry.bottlenecks.register("soft_em")
class SoftEM(VectorQuantiser):
    """Each position takes the mean of `num_samples` codes drawn from its posterior."""

    def __init__(
        self, num_codes: int, dim: int, settings: CodebookSettings | None = None, *, num_samples: int = 10
    ):
        """`num_samples` is m, at least 1 (1 is stochastic hard EM, not the argmin)."""
        require_whole(1, num_samples=num_samples)
        super().__init__(num_codes, dim, settings)
        self.num_samples = num_samples

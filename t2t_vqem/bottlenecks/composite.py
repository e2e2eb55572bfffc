"""Bottlenecks made of others: `product` quantises slices side by side, `residual` what is left, one after the other."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import Bottleneck, BottleneckOutput, DrawnCodes, Positions, projection
from t2t_vqem.bottlenecks.checks import require, require_whole
from t2t_vqem.bottlenecks.codebook import scaled
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Draws, LossTerm, Training
from t2t_vqem.errors import UserError

_open: list[str] = []  # the composites that are being made, from the outermost on


class Composite(Bottleneck):
    """Several bottlenecks of one kind, each with slots of its own; losses and metrics are means over them."""

    def __init__(self, levels: list[Bottleneck], dim: int, settings: CodebookSettings | None):
        super().__init__(levels[0].num_codes, dim, settings, slots=sum(level.slots for level in levels))
        self.levels = levels

    @property
    def stochastic(self) -> bool:
        return any(level.stochastic for level in self.levels)

    @abc.abstractmethod
    def _parts(self, number: int, codes: tf.Tensor) -> tf.Tensor:
        """Returns [..., its slots, dim], what one bottleneck adds to the whole."""

    def _combined(self, quantized: tf.Tensor, outputs: list[BottleneckOutput]) -> BottleneckOutput:
        statistics, metrics = {}, {}
        for number, output in enumerate(outputs):
            statistics |= {f"{number}/{name}": value for name, value in output.statistics.items()}
            for name, (total, weight) in output.metrics.items():
                before = metrics.get(name, LossTerm(0.0, 0.0))
                metrics[name] = LossTerm(before.sum + total, before.weight + weight)
        loss = tf.add_n([output.loss.sum for output in outputs]) / len(outputs)
        return BottleneckOutput(
            quantized=quantized,
            codes=tf.concat([output.codes for output in outputs], axis=-1),
            samples=tf.concat([output.samples for output in outputs], axis=-2),
            loss=LossTerm(loss, outputs[0].loss.weight),
            statistics=statistics,
            metrics=metrics,
        )

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        for number, level in enumerate(self.levels):
            prefix = f"{number}/"
            own = {k.removeprefix(prefix): v for k, v in statistics.items() if k.startswith(prefix)}
            level.m_step(own)

    def settle(self) -> None:
        for level in self.levels:
            level.settle()

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        own = tf.split(codes, [level.slots for level in self.levels], axis=-1)
        return tf.concat([self._parts(number, part) for number, part in enumerate(own)], axis=-2)

    def usage(self) -> dict[str, tf.Tensor]:
        """As the levels'; scalars are means over them."""
        found = [level.usage() for level in self.levels]
        figures = {k: tf.add_n([f[k] for f in found]) / len(found) for k in found[0] if k != "counts"}
        return figures | {"counts": tf.concat([f["counts"] for f in found], axis=0)}


@registry.bottlenecks.register("product")
class Product(Composite):
    """Slices of the encoding, each with a bottleneck of its own: DVQ (Kaiser et al. 2018, arXiv 1803.03382)."""

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        base: str = "soft_em",
        slices: int = 2,
        projected: bool = False,
    ):
        """Makes the bottlenecks, each with `num_codes` codes of dim / slices numbers.

        Args:
          base: name of the registered bottleneck of each slice.
          projected: whether a slice is a learnt projection of the whole encoding rather than a part of it.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        require_whole(1, slices=slices)
        require(dim % slices == 0, "slices", slices, f"a divisor of the encoding's {dim} numbers")
        require(type(projected) is bool, "projected", projected, "True or False")
        with _making("product", base) as make:
            levels = [make(num_codes, dim // slices, settings) for _ in range(slices)]
        super().__init__(levels, dim, settings)
        self.project_in = projection(dim, dim, "project_in") if projected else None

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck."""
        x = tf.convert_to_tensor(x)
        outputs = [level.e_step(part, mask, training) for level, part in self._slices(x, mask)]
        quantized = tf.concat([output.quantized for output in outputs], axis=-1)
        return self._combined(tf.cast(quantized, x.dtype), outputs)

    def draw(self, x: tf.Tensor, draws: Draws) -> DrawnCodes:
        """See Bottleneck."""
        return _side_by_side([level.draw(part, draws) for level, part in self._slices(x, None)])

    def _slices(self, x: tf.Tensor, mask: tf.Tensor | None) -> Iterator[tuple[Bottleneck, tf.Tensor]]:
        """Yields each bottleneck with its slice of `x`."""
        if self.project_in is not None:
            positions = Positions(x, mask)
            x = positions.restore(self.project_in(positions.x))
        return zip(self.levels, tf.split(x, len(self.levels), axis=-1), strict=True)

    def _parts(self, number: int, codes: tf.Tensor) -> tf.Tensor:
        parts = self.levels[number].parts(codes)
        size = parts.shape[-1]
        before, after = number * size, (len(self.levels) - 1 - number) * size
        return tf.pad(parts, [[0, 0]] * (parts.shape.rank - 1) + [[before, after]])


def sliced(name: str, num_codes: int, slices: int, slice_dim: int) -> Bottleneck:
    """Returns the bottleneck `name` for encodings of `slices` x `slice_dim` numbers, one for every slice.

    Raises:
      UserError: gin binds what `name` and `slices` decide here.
    """
    for parameter in ("product.base", "product.slices"):
        if slices > 1 and registry.bound(parameter):
            raise UserError(
                f"{parameter} is bound, and the model's own hparams say what each of its {slices} slices is; "
                f"leave {parameter} away"
            )
    if slices == 1:
        return registry.bottlenecks.get(name)(num_codes=num_codes, dim=slice_dim)
    product = registry.bottlenecks.get("product")
    return product(num_codes=num_codes, dim=slices * slice_dim, base=name, slices=slices)


@registry.bottlenecks.register("residual")
class Residual(Composite):
    """A bottleneck for the encoding, one for what that leaves, and so on; the quantised are added (RVQ).

    The encoding is scaled to `codebook.norm` once, before the first. Gradients follow the chain rule: through a
    straight-through level none is left for those below, so that the encoder's passes once.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        base: str = "hard_em",
        depth: int = 2,
    ):
        """Makes `depth` bottlenecks of the kind `base`, each with `num_codes` codes.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        require_whole(1, depth=depth)
        settings = settings or registry.parts.get("codebook")()
        require(
            not settings.cosine, "cosine", True, "False in a residual: what is left has no norm of its own"
        )
        with _making("residual", base) as make:
            levels = [make(num_codes, dim, dataclasses.replace(settings, norm=None)) for _ in range(depth)]
        super().__init__(levels, dim, settings)

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck. Metrics are means over the levels; `quantization_error` is that of the whole."""
        positions = Positions(x, mask)
        whole = scaled(positions.x, self.settings.norm)
        rest, outputs = positions.restore(whole), []
        for level in self.levels:
            outputs.append(level.e_step(rest, mask, training))
            rest -= outputs[-1].quantized
        quantized = tf.add_n([output.quantized for output in outputs])
        combined = self._combined(tf.cast(quantized, tf.convert_to_tensor(x).dtype), outputs)
        left = tf.reduce_sum(tf.square(tf.stop_gradient(Positions(rest, mask).x)), axis=-1)
        error = tf.math.divide_no_nan(left, tf.reduce_sum(tf.square(tf.stop_gradient(whole)), axis=-1))
        return combined._replace(metrics=combined.metrics | {"quantization_error": positions.term(error)})

    def draw(self, x: tf.Tensor, draws: Draws) -> DrawnCodes:
        """See Bottleneck. A level's codes are drawn given those of the levels before it."""
        positions = Positions(x, None)
        rest, drawn = positions.restore(scaled(positions.x, self.settings.norm)), []
        for level in self.levels:
            drawn.append(level.draw(rest, draws))
            rest -= level.embed(drawn[-1].codes)
        return _side_by_side(drawn)

    def _parts(self, number: int, codes: tf.Tensor) -> tf.Tensor:
        return self.levels[number].parts(codes)


def _side_by_side(drawn: list[DrawnCodes]) -> DrawnCodes:
    """Returns the slots of all."""
    return DrawnCodes(*(tf.concat(parts, axis=-1) for parts in zip(*drawn, strict=True)))


@contextlib.contextmanager
def _making(name: str, base: str) -> Iterator[object]:
    """Yields what makes the parts of the composite `name`; raises UserError if it would consist of itself."""
    require(base != name and base not in _open, f"{name}.base", base, "another bottleneck than itself")
    _open.append(name)
    try:
        yield registry.bottlenecks.get(base)
    finally:
        _open.pop()

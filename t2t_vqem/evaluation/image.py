"""How well a model of pictures codes a split: bits per dimension, likeness, usage of the codes, pictures.

A dimension is a number of a picture: 32 x 32 x 3 = 3,072 of them for CIFAR-10. With z the codes of a picture x,
-log2 P(x | z) - log2 P(z) is an upper bound of -log2 P(x), for P(x) sums over all z. The figures of both terms are over
the same dimensions, so that they add: `bits_per_dim` is their sum. Where model or prior are told the picture's class,
all of it is given the class, and the signature says so.

A bottleneck that has a distribution q of codes, soft EM's posterior or a categorical one, has a second bound, the mean
of -log2 P(x | z) - log2 P(z) + log2 q(z | x) over codes drawn from q: the negative evidence lower bound. That is what
bits-back coding pays (Townsend et al. 2019, arXiv 1901.04866), which gets the bits back that choose z; whoever stores
the likeliest codes pays the first.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from t2t_vqem.context import Draws
from t2t_vqem.decoding import pictures as drawing
from t2t_vqem.decoding.prior import Prior
from t2t_vqem.evaluation import codebook, patches, picture_grid
from t2t_vqem.evaluation.labelled import LabelledEvaluator
from t2t_vqem.models.model import Features, Model

Value = float | str | np.ndarray
_SHOWN = 16  # pictures beside their reconstructions
_COLUMNS = 8
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # on the way from one picture to another
_TEMPERATURES = (0.6, 0.8, 1.0)  # that samples are drawn at, a row each
_PATCHES = 16  # codes of a slot whose patches are shown


class ImageEvaluator(LabelledEvaluator):
    """Evaluates models of pictures on one split of a problem, see `LabelledEvaluator`; a model is traced once.

    A model's `look` gives losses, "outputs", "codes" and "nats"; for the second bound it has `draw` and `nats`, see
    `models.vqvae.VQVAE`.
    """

    main_metric = "bits_per_dim"
    _traced: tuple[Model, Callable] | None = None

    def evaluate(self, model: Model, step: int) -> Mapping[str, Value]:
        """Returns the figures of `model` by name, under a uniform prior; see `evaluate_with_prior`."""
        del step  # the caller's, to file the values under
        return self.evaluate_with_prior(model)

    def evaluate_with_prior(self, model: Model, prior: Prior | None = None) -> Mapping[str, Value]:
        """Returns the figures of `model` by name.

        Floats: `reconstruction_bits_per_dim`, `prior_bits_per_dim` and their sum `bits_per_dim`, an upper bound;
        `psnr` in dB and `ssim`, means over the pictures; every loss and metric of the forward pass, as a mean over
        the split; `codebook.usage`. Text: `bits_per_dim_signature`. Array: `code_histogram`, int64
        [slots, num_codes]. Pictures: `reconstructions` (a row of originals, below it what became of them),
        `interpolations`; `patches` (what the codes of the first slot stand for, the most frequent first: the mean
        of the places in the pictures that had them); with a prior `samples`, a row for each temperature.

        Where codes have a distribution there are four floats more, of one draw for each picture:
        `drawn_reconstruction_bits_per_dim`, `drawn_prior_bits_per_dim` and `code_entropy_bits_per_dim`, and
        `drawn_bits_per_dim`, the sum of the first two less the third, an upper bound too; and its signature.

        Args:
          prior: of the codes; None takes all codes as equally likely.
        """
        drawing.require_codes(model, "its evaluation")
        if self._traced is None or self._traced[0] is not model:
            self._traced = (model, tf.function(functools.partial(_look, model), autograph=False))
        of_codes = _nats_of_codes(model, prior)
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        counts, seen, shown = 0, 0, []
        size = patches.patch_shape(model)
        means_of_first = patches.MeanPatches(model.num_codes, [*size, model.image_shape[-1]])
        for batch in self.batches():
            pictures, labels = batch["targets"], batch["inputs"]
            features = {name: tf.constant(array) for name, array in batch.items()}
            numbers = tf.constant(self._chosen[seen : seen + len(labels)], tf.int32)
            found, terms = self._traced[1](features, numbers)
            seen += len(labels)
            for term, (total, weight) in terms.items():
                sums[term] += [float(total), float(weight)]
            of_each = {key: found[key] for key in ("psnr", "ssim", "nats")}
            of_each["prior"] = of_codes(labels, found["codes"])
            if "drawn_codes" in found:
                of_each |= {key: found[key] for key in ("drawn_nats", "code_entropy")}
                of_each["drawn_prior"] = of_codes(labels, found["drawn_codes"])
            for key, values in of_each.items():
                sums[key] += [float(tf.reduce_sum(values)), len(labels)]
            codes = found["codes"].numpy()
            counts += codebook.code_counts(codes, np.ones(codes.shape[:-1], bool), model.num_codes)
            parts = patches.split(pictures, model.code_shape, size)
            means_of_first.add(parts.reshape(-1, *parts.shape[2:]), codes[..., 0].ravel())
            if sum(map(len, (pair[0] for pair in shown))) < _SHOWN:
                shown.append((pictures, found["outputs"].numpy(), labels))
        means: dict[str, float] = {key: total / weight for key, (total, weight) in sums.items() if weight > 0}
        return {
            **_bits(model, prior, means),
            **means,
            **codebook.usage(counts),
            "code_histogram": counts,
            **_pictures(model, shown),
            "patches": means_of_first.picture(_PATCHES),
            **({"samples": self._samples(model, prior)} if prior else {}),
        }

    def _samples(self, model: Model, prior: Prior) -> np.ndarray:
        classes = self.manifest["num_classes"]
        rows = [
            list(drawing.samples(model, prior.model, _COLUMNS, num_classes=classes, temperature=temperature))
            for temperature in _TEMPERATURES
        ]
        return picture_grid.grid(np.array(rows), scale=2)


def _look(
    model: Model, batch: Features, rows: tf.Tensor
) -> tuple[Features, dict[str, tuple[tf.Tensor, tf.Tensor]]]:
    """Returns what `look` does, the likeness of each picture, and where the model draws codes what these cost.

    `rows` int32 [batch] are the pictures' places in the split, which choose the draws.
    """
    output, found = model.look(batch)
    pictures, rebuilt = batch["targets"], found["outputs"]
    height, width = pictures.shape[1:3]
    found |= {
        "psnr": _psnr(pictures, rebuilt),
        "ssim": tf.image.ssim(pictures, rebuilt, 255, filter_size=min(11, height, width)),
    }
    if drawing.draws_codes(model):
        drawn = model.draw(pictures, Draws(0, tf.constant(0), rows))
        found |= {
            "drawn_codes": drawn.codes,
            "drawn_nats": model.nats(batch, drawn.codes),
            "code_entropy": tf.reduce_sum(drawn.entropy, axis=[1, 2, 3]),
        }
    return found, {**output.losses, **output.metrics}


def _nats_of_codes(model: Model, prior: Prior | None) -> Callable[[np.ndarray, tf.Tensor], tf.Tensor]:
    """Returns what maps labels [batch] and codes [batch, ...] to -log P(codes), float32 [batch]."""
    if prior is None:
        nats = math.prod(model.code_shape) * math.log(model.num_codes)
        return lambda labels, codes: tf.fill([len(labels)], nats)
    traced = tf.function(prior.nats, autograph=False)
    return lambda labels, codes: traced({"inputs": tf.constant(labels), "targets": codes})


def _bits(model: Model, prior: Prior | None, means: dict[str, float]) -> dict[str, Value]:
    """Takes the nats of a picture out of `means` and returns them as bits per dimension, with signatures."""
    numbers, latents = math.prod(model.image_shape), math.prod(model.code_shape)
    told = model.classes is not None or (prior is not None and prior.model.classes is not None)

    def bits(key: str) -> float:
        return means.pop(key) / numbers / math.log(2)

    def signature(drawn: str = "") -> str:
        return (
            f"upper bound|dims:{numbers}|codes:{latents}{drawn}|K:{model.num_codes}"
            f"|prior:{prior.name if prior else 'uniform'}{'|given:class' if told else ''}"
        )

    of_picture, of_codes = bits("nats"), bits("prior")
    figures = {
        "bits_per_dim": of_picture + of_codes,
        "reconstruction_bits_per_dim": of_picture,
        "prior_bits_per_dim": of_codes,
        "bits_per_dim_signature": signature(),
    }
    if "drawn_nats" not in means:
        return figures
    of_picture, of_codes, entropy = bits("drawn_nats"), bits("drawn_prior"), bits("code_entropy")
    return figures | {
        "drawn_bits_per_dim": of_picture + of_codes - entropy,
        "drawn_reconstruction_bits_per_dim": of_picture,
        "drawn_prior_bits_per_dim": of_codes,
        "code_entropy_bits_per_dim": entropy,
        "drawn_bits_per_dim_signature": signature(", drawn"),
    }


def _psnr(pictures: tf.Tensor, rebuilt: tf.Tensor) -> tf.Tensor:
    """Returns the peak signal-to-noise ratio of each picture in dB, [batch].

    One that is rebuilt exactly counts as if a single number were off by one: infinity has no mean.
    """
    squares = tf.square(tf.cast(pictures, tf.float32) - tf.cast(rebuilt, tf.float32))
    error = tf.maximum(tf.reduce_mean(squares, axis=[1, 2, 3]), 1.0 / math.prod(pictures.shape[1:]))
    return 10.0 * tf.math.log(255.0**2 / error) / math.log(10.0)


def _pictures(model: Model, shown: list[tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
    originals, rebuilt, labels = (np.concatenate(part)[:_SHOWN] for part in zip(*shown, strict=True))
    columns = min(_COLUMNS, len(originals))
    half = len(originals) // 2
    found = {"reconstructions": picture_grid.beside((originals, rebuilt), columns, scale=2)}
    if half:
        between = model.interpolate(
            tf.constant(originals[:half]),
            tf.constant(originals[half : 2 * half]),
            _SHARES,
            tf.constant(labels[:half]),
        )
        found["interpolations"] = picture_grid.grid(between.numpy(), scale=2)
    return found

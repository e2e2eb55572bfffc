"""Pictures to a file of codes and back; lossy, for what a file holds are the codes."""

import itertools
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from t2t_vqem.compression import coding
from t2t_vqem.compression.container import UNIFORM, Container, Maker
from t2t_vqem.decoding.pictures import Picture, batches, filled
from t2t_vqem.decoding.prior import Prior
from t2t_vqem.errors import UserError
from t2t_vqem.models.model import Model
from t2t_vqem.progress import Progress
from t2t_vqem.training.fingerprint import fingerprint

ROWS = 64
"""Pictures that are coded side by side, but for files of fewer."""


class Codec:
    """An image model, and a prior over its codes or none.

    Where a model is class-conditional, it is told the first class, for files have none.
    """

    def __init__(self, model: Model, name: str, prior: Prior | None = None):
        """`name` is what messages call the image model: model and step.

        Raises:
          UserError: constriction is missing, or the prior has latents of its own, which no file holds.
        """
        coding.require_library()
        if prior and prior.model.side_nats:
            raise UserError(
                f"the prior {prior.name} predicts codes from latents of its own, which bin/codec does not keep; give a "
                "run of latent_prior or pixelcnn"
            )
        self._model, self._prior = model, prior.model if prior else None
        self._made_by = Maker(name, fingerprint(model))
        self._coded_by = Maker(prior.name, fingerprint(prior.model)) if prior else UNIFORM

    def encode(self, pictures: Iterable[Picture], count: int) -> tuple[Container, dict[str, Any]]:
        """Returns the file of `count` pictures, and figures of it.

        Figures: `bits_per_pixel` of the payload, and `bound_bits_per_pixel`, that of -log2 P(codes) by teacher
        forcing; `ratio` of the first to the second; `uniform_bits_per_pixel`, what codes cost without a prior; bytes
        of payload, header (all the rest) and file; `psnr` in dB, the mean over the pictures of what decoding will
        give, None where a picture comes back exactly.

        Raises:
          UserError: the prior finds codes impossible or computes no numbers.
        """
        rows = min(ROWS, count)
        names, codes, psnr = self._look(iter(pictures), count, rows)
        setting = (self._model.num_codes, self._prior, rows)
        bound = coding.bound(codes, *setting)
        if not math.isfinite(bound):
            raise UserError(
                f"the prior {self._coded_by.name} computes no finite probabilities of these codes"
            )
        container = Container(
            image_shape=self._model.image_shape,
            code_shape=self._model.code_shape,
            num_codes=self._model.num_codes,
            rows=rows,
            model=self._made_by,
            prior=self._coded_by,
            names=tuple(names),
            codes_crc=_crc(codes),
            payload=coding.write(codes, *setting),
        )
        pixels = count * math.prod(self._model.image_shape[:2])
        payload, file = len(container.payload), len(container.pack())
        return container, {
            "pictures": count,
            "pixels": pixels,
            "codes": codes.size,
            "bits_per_pixel": 8 * payload / pixels,
            "bound_bits_per_pixel": bound / pixels,
            "ratio": 8 * payload / bound,
            "uniform_bits_per_pixel": codes.size * math.log2(self._model.num_codes) / pixels,
            "payload_bytes": payload,
            "header_bytes": file - payload,
            "file_bytes": file,
            "file_bits_per_pixel": 8 * file / pixels,
            "psnr": float(psnr.mean()) if np.isfinite(psnr).all() else None,
        }

    def require_made_with(self, container: Container, path: str) -> None:
        """Raises a UserError unless the file `path` was written with these models."""
        if self._prior is None and container.prior != UNIFORM:
            name = container.prior.name
            raise UserError(f"{path} was written with the prior {name}; give it by --prior_model_dir")
        if self._prior is not None and container.prior == UNIFORM:
            raise UserError(f"{path} was written without a prior; leave --prior_model_dir out")
        model = self._model
        same = (container.image_shape, container.code_shape, container.num_codes) == (
            tuple(model.image_shape),
            tuple(model.code_shape),
            model.num_codes,
        )
        pairs = (
            ("image model", "--checkpoint", container.model, self._made_by, same),
            ("prior", "--prior_checkpoint", container.prior, self._coded_by, True),
        )
        for what, flag, there, here, fits in pairs:
            if there.fingerprint != here.fingerprint or not fits:
                raise UserError(
                    f"{path} was written with another {what}: {there.name} with the weights "
                    f"{there.fingerprint.hex()}, and this is {here.name} with {here.fingerprint.hex()}; give the run "
                    f"that wrote it, and its step by {flag} if that is not the best"
                )

    def decode(self, container: Container, path: str) -> Iterator[Picture]:
        """Yields the pictures of the file `path` in order, each the mean of P(picture | codes).

        Raises:
          UserError: it was written with other models, or the prior computes other probabilities here.
        """
        self.require_made_with(container, path)
        codes = coding.read(
            container.payload,
            len(container.names),
            container.code_shape,
            container.num_codes,
            self._prior,
            container.rows,
        )
        if _crc(codes) != container.codes_crc:
            raise UserError(
                f"{path} cannot be read here: the prior's probabilities are not those it was written with, as may "
                "happen on another processor or with another TensorFlow; decode it where it was encoded, or encode it "
                "without a prior"
            )
        decode = tf.function(self._decoded, autograph=False)
        named = zip(container.names, codes, strict=True)
        while batch := list(itertools.islice(named, container.rows)):
            stacked = filled(np.stack([own for _, own in batch]), container.rows)
            pixels = decode(tf.constant(stacked)).numpy()
            yield from (Picture(name, own) for (name, _), own in zip(batch, pixels, strict=False))

    def _look(
        self, pictures: Iterator[Picture], count: int, rows: int
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns of all pictures the names, the codes int32 [pictures, *code_shape] and the PSNR [pictures]."""

        def look(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            codes = self._model.encode(pixels)
            return codes, tf.image.psnr(pixels, self._decoded(codes), 255)

        traced, progress = tf.function(look, autograph=False), Progress("encoding", count, "pictures")
        names, codes, psnr = [], [], []
        for own, pixels in batches(pictures, rows):
            found, quality = traced(tf.constant(pixels))
            names += own
            codes.append(found.numpy()[: len(own)])
            psnr.append(quality.numpy()[: len(own)])
            progress.made(len(own))
        return names, np.concatenate(codes), np.concatenate(psnr)

    def _decoded(self, codes: tf.Tensor) -> tf.Tensor:
        return self._model.decode(codes, tf.zeros([tf.shape(codes)[0]], tf.int32))


def _crc(codes: np.ndarray) -> int:
    return zlib.crc32(codes.astype("<i4").tobytes())

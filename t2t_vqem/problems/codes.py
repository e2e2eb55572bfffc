"""What a trained image model makes of a problem's pictures: fields of codes, the data that priors learn.

`NAME_codes` is a problem wherever NAME is one of pictures, with NAME's splits and labels. `bin/encoder` has a run
write them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from t2t_vqem import files, registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems import generation, shards
from t2t_vqem.problems.labelled import ArrayFormat, LabelledProblem

if TYPE_CHECKING:
    import tensorflow as tf

    from t2t_vqem.problems.batches import Batching

SUFFIX = "_codes"
LIKELIEST = "likeliest"
"""How codes were chosen where the manifest does not say it."""

_COUNTS = "train_code_counts.npy"


def register(name: str, base: str) -> None:
    """Registers the problem `name` made of the registered problem `base`."""
    registry.problems.register(name)(type(name, (CodesProblem,), {"name": name, "base_name": base}))


class CodesProblem(LabelledProblem):
    """Fields of codes of `base_name`'s pictures.

    "targets" of the batches are int32 [steps, rows, height, width, slots]; see `LabelledProblem`.

    Attributes:
      base: the problem of pictures.
      code_shape: (height, width, slots) of a field; None until the manifest is read.
      num_codes: codes are 0 .. num_codes - 1 in every slot; None as above.
      num_classes: labels are 0 .. num_classes - 1; None as above.
    """

    content = "codes"
    unit = "fields of codes"
    base_name: str

    def __init__(self):
        self.base = registry.problems.get(self.base_name)()
        self.base.require_content("images", "bin/encoder")
        self.splits, self.dev_split = self.base.splits, self.base.dev_split
        self.code_shape: tuple[int, int, int] | None = None
        self.num_codes: int | None = None
        self.num_classes: int | None = None

    @property
    def array_format(self) -> ArrayFormat:
        if self.code_shape is None:
            raise UserError(f"the size of the fields of {self.name} is not known before bin/encoder has run")
        return _format(self.code_shape, self.num_codes)

    def dimensions(self, data_dir: str | None) -> dict[str, Any] | None:
        if data_dir is not None:
            self.manifest(data_dir)
        if self.code_shape is None:
            return None
        sizes = {"num_codes": self.num_codes, "num_classes": self.num_classes}
        return {"code_shape": list(self.code_shape), **sizes}

    def manifest(self, data_dir: str) -> dict[str, Any]:
        """Returns the manifest; besides the files it says what the codes are of.

        "encoder" is the run that made them and how: problem, data fingerprint, model, step, weights and more.
        "image_shape" is that of the pictures, so that bits of codes can be given as bits per dimension.
        """
        manifest = super().manifest(data_dir)
        self.code_shape = tuple(manifest["code_shape"])
        self.num_codes, self.num_classes = manifest["num_codes"], manifest["num_classes"]
        return manifest

    def train_counts(self, data_dir: str) -> np.ndarray:
        """Returns how often each code stands in each slot of the training split, int64 [slots, num_codes]."""
        self.manifest(data_dir)
        return np.load(os.path.join(self.folder(data_dir), _COUNTS), allow_pickle=False)

    def generate(
        self, data_dir: str, source_dir: str | None = None, workers: int | None = None
    ) -> dict[str, Any]:
        """Returns the manifest of what bin/encoder wrote; raises a UserError if it has not."""
        del source_dir, workers
        if not os.path.exists(os.path.join(self.folder(data_dir), shards.MANIFEST)):
            raise UserError(
                f"the data of {self.name} are the codes of an image model, and there are none in {data_dir}: run "
                f"bin/encoder --model_dir=RUN --data_dir={data_dir}, with a run trained on {self.base_name}"
            )
        return self.manifest(data_dir)

    def require_encoder(self, data_dir: str, encoder: Mapping[str, Any]) -> None:
        """Raises a UserError if there are codes already, of another run or chosen otherwise."""
        if not os.path.exists(os.path.join(self.folder(data_dir), shards.MANIFEST)):
            return
        there = {"codes": LIKELIEST} | self.manifest(data_dir)["encoder"]
        for key, value in encoder.items():
            if there.get(key) != value:
                raise UserError(
                    f"{self.folder(data_dir)} was made otherwise: encoder.{key} is {there.get(key)}, not {value}; "
                    "delete it or choose another --data_dir"
                )

    def write(
        self,
        data_dir: str,
        encode: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
        *,
        code_shape: Sequence[int],
        num_codes: int,
        encoder: Mapping[str, Any],
        batching: Batching,
    ) -> dict[str, Any]:
        """Writes the codes of all splits once and returns the manifest; cheap where they lie complete already.

        A call that was interrupted goes on behind the finished shards, which are those of the pictures.

        Args:
          encode: maps pictures uint8 [rows, height, width, channels], the number of their shard int32 [] and their
            places in it int32 [rows] (-1 of a filling row) to codes int32 [rows, *code_shape].
          encoder: what tells the run from any other; values of JSON.
          batching: of the pictures, as the run's model takes them.

        Raises:
          UserError: no pictures or damaged ones, other codes there, another process that writes them now, or a
            folder that cannot be written to.
        """
        self.require_encoder(data_dir, encoder)
        final, base_folder = self.folder(data_dir), self.base.folder(data_dir)
        if os.path.exists(os.path.join(final, shards.MANIFEST)):
            return self.manifest(data_dir)
        pictures = self.base.check(data_dir)
        splits = {
            split: {key: entry[key] for key in ("examples", "shards", "labels")}
            for split, entry in pictures["splits"].items()
        }
        about = {
            "problem": self.name,
            "encoder": dict(encoder),
            "code_shape": list(code_shape),
            "num_codes": num_codes,
            **{key: pictures[key] for key in ("num_classes", "label_names", "image_shape")},
        }
        stored = _format(tuple(code_shape), num_codes)

        names = [name for entry in splits.values() for name in entry["shards"]]

        def write_shard(folder: str, name: str, paths: list[str]) -> dict[str, Any]:
            shard = names.index(name)
            examples = _encoded(paths, shard, self.base.array_format, batching, encode, num_codes)
            return _write_shard(os.path.join(folder, name), examples, stored)

        partial = final + ".partial"
        with generation.exclusive(partial, wait=False):
            generation.resume(partial, about)
            entries = generation.write_shards(
                partial,
                (generation.Shard(name, [os.path.join(base_folder, name)]) for name in names),
                write_shard,
                total=sum(entry["examples"] for entry in splits.values()),
                workers=1,
                command="encoder",
            )
            paths = [os.path.join(partial, name) for name in splits[self.train_split]["shards"]]
            buffer = io.BytesIO()
            np.save(buffer, _count(paths, stored, num_codes))
            files.write_atomic(os.path.join(partial, _COUNTS), buffer.getvalue())
            written = {name: {key: entries[name][key] for key in ("bytes", "sha256")} for name in names}
            written[_COUNTS] = shards.describe(os.path.join(partial, _COUNTS))
            generation.publish(partial, final, about | {"splits": splits, "files": written})
        return self.manifest(data_dir)

    def described(self, array: np.ndarray) -> str:
        """Returns the codes of the first position, slot by slot."""
        return f" of {self.num_codes} codes, first {' '.join(map(str, array[0, 0]))}"


def _format(code_shape: tuple[int, int, int], num_codes: int) -> ArrayFormat:
    kept_as = "uint8" if num_codes <= 2**8 else "uint16" if num_codes <= 2**16 else "int32"
    return ArrayFormat("codes", code_shape, kept_as=kept_as, given_as="int32")


def _encoded(
    paths: Sequence[str],
    shard: int,
    pictures: ArrayFormat,
    batching: Batching,
    encode: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    num_codes: int,
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the codes and the label of each picture of a shard, in order."""
    import tensorflow as tf

    from t2t_vqem.problems import array_batches

    number = tf.constant(shard)
    for batch in array_batches.evaluation_batches(paths, pictures, batching):
        index = batch["index"]
        codes, real = encode(batch["targets"], number, index).numpy(), index.numpy() >= 0
        if codes.min() < 0 or codes.max() >= num_codes:
            raise ValueError(f"codes from {codes.min()} to {codes.max()} of a model of {num_codes} codes")
        yield from zip(codes[real], batch["inputs"].numpy()[real].tolist(), strict=True)


def _write_shard(
    path: str, examples: Iterator[tuple[np.ndarray, int]], stored: ArrayFormat
) -> dict[str, Any]:
    from t2t_vqem.problems import array_batches

    records = [array_batches.record(codes, label, stored) for codes, label in examples]
    return shards.write_records(path, records) | {"examples": len(records)}


def _count(paths: Sequence[str], stored: ArrayFormat, num_codes: int) -> np.ndarray:
    """Returns int64 [slots, num_codes]."""
    import tensorflow as tf

    from t2t_vqem.problems import array_batches

    slots = stored.shape[-1]
    counts = np.zeros([slots, num_codes], np.int64)
    for records in tf.data.TFRecordDataset(paths).batch(1024):
        codes = array_batches.parse(records, stored)["targets"].numpy().reshape(-1, slots)
        for slot in range(slots):
            counts[slot] += np.bincount(codes[:, slot], minlength=num_codes)
    return counts

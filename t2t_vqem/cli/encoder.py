"""Has a trained image model encode its problem's pictures: the data of NAME_codes, ready to train a prior on.

    bin/encoder --model_dir=runs/vqvae --data_dir=data
    bin/trainer --problem=NAME_codes --model=latent_prior --data_dir=data ...

All splits are encoded, in the batches that the run was trained with. Each code is the likeliest, as bin/codec takes
it; with --drawn it is drawn from P(code | picture): train a prior on these for the sake of drawn_bits_per_dim. A run
that was interrupted goes on behind the finished shards. The last line of stdout is a JSON object.
"""

import json
import time

import numpy as np
from absl import flags as absl_flags

from t2t_vqem import config, registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "data_dir", "usr_dir", "gin_param", "checkpoint")
absl_flags.DEFINE_bool(
    "drawn", False, "draw each code from P(code | picture); it is the likeliest if not given"
)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    metadata = flags.configure_run()

    import tensorflow as tf

    from t2t_vqem.context import Draws
    from t2t_vqem.decoding import pictures
    from t2t_vqem.problems.batches import Batching
    from t2t_vqem.problems.codes import LIKELIEST, SUFFIX
    from t2t_vqem.training import runs, strategy
    from t2t_vqem.training.fingerprint import fingerprint

    run, _ = runs.open_unchanged(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    flags.require_used()
    config.check_run(FLAGS.model_dir)
    base, model, train, data_dir = run.problem, run.model, run.train_config, metadata.data_dir
    base.require_content("images", "bin/encoder")
    pictures.require_codes(model, "bin/encoder", ("encode", "code_shape", "num_codes"))
    if FLAGS.drawn and not pictures.draws_codes(model):
        raise UserError(
            "--drawn has nothing to draw: the codes of this run have no distribution; leave it out"
        )
    runs.check_data(run)

    def encode(batch: tf.Tensor, shard: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return model.draw(batch, Draws(0, shard, rows)).codes if FLAGS.drawn else model.encode(batch)

    start = time.monotonic()
    problem = registry.problems.get(base.name + SUFFIX)()
    manifest = problem.write(
        data_dir,
        tf.function(encode, autograph=False),
        code_shape=model.code_shape,
        num_codes=model.num_codes,
        encoder={
            "problem": base.name,
            "data": base.fingerprint(data_dir),
            "model": metadata.model,
            "step": run.step,
            "weights": fingerprint(model).hex(),
            "dtype": strategy.compute_dtype(train.dtype),  # what "auto" means here
            "codes": "drawn" if FLAGS.drawn else LIKELIEST,
        },
        batching=Batching(batch_tokens=train.batch_tokens, boundaries=train.boundaries),
    )
    result = {
        "problem": problem.name,
        "folder": problem.folder(data_dir),
        "step": run.step,
        "code_shape": manifest["code_shape"],
        "num_codes": manifest["num_codes"],
        "live_codes": np.count_nonzero(problem.train_counts(data_dir), axis=1).tolist(),  # of each slot
        "examples": {split: entry["examples"] for split, entry in manifest["splits"].items()},
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    cli_main.run(main)

"""Generates the data of a registered problem once: shards, a vocabulary for text, a manifest that vouches for them.

    bin/datagen --problem=multi30k_ende --source_dir=multi30k --data_dir=data
    bin/datagen --problem=multi30k_ende --data_dir=data --verify --inspect=3 --split=val
    bin/datagen --problem=cifar10 --source_dir=cifar-10-batches-py --data_dir=data

A run that was interrupted goes on where it was. Data that lie there complete are left as they are. The last
line of stdout is a JSON object.
"""

import json
import time

from absl import flags as absl_flags

from t2t_vqem import registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main

flags.define("problem", "data_dir", "source_dir", "split", "usr_dir", "gin_file", "gin_param")
absl_flags.DEFINE_integer("workers", None, "processes; one a core if not given", lower_bound=1)
absl_flags.DEFINE_integer("inspect", 0, "print what that many examples of --split are", lower_bound=0)
absl_flags.DEFINE_boolean("verify", False, "read all of the data and compare it with its checksums")
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    flags.require("problem", "data_dir")
    registry.load_usr_dir(FLAGS.usr_dir)
    if FLAGS.problem not in registry.problems.names():
        registry.problems.get(FLAGS.problem)  # raises, naming the nearest
    flags.configure()
    problem = registry.problems.get(FLAGS.problem)()
    split = problem.require_split(FLAGS.split or problem.dev_split)
    start = time.monotonic()
    manifest = problem.generate(FLAGS.data_dir, FLAGS.source_dir, FLAGS.workers)
    if FLAGS.verify:
        problem.check(FLAGS.data_dir)
    if FLAGS.inspect:
        for line in problem.inspect(split, FLAGS.data_dir, FLAGS.inspect):
            print(line)
    result = {
        "problem": problem.name,
        "folder": problem.folder(FLAGS.data_dir),
        "examples": {name: entry["examples"] for name, entry in manifest["splits"].items()},
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "fingerprint": problem.fingerprint(FLAGS.data_dir),
        "seconds": round(time.monotonic() - start, 1),
    }
    if "vocabulary" in manifest:
        vocabulary = manifest["vocabulary"]
        result |= {"vocab_size": vocabulary["size"], "vocabulary_hash": vocabulary["hash"]}
    result |= {
        key: manifest[key]
        for key in ("image_shape", "code_shape", "num_codes", "num_classes")
        if key in manifest
    }
    print(json.dumps(result))


if __name__ == "__main__":
    cli_main.run(main)

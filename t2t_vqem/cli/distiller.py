"""Has a trained run translate its problem's training set: the data of NAME_distill, ready to train on.

    bin/distiller --model_dir=teacher --data_dir=data --gin_param='decode.beam_size = 4'
    bin/distiller --model_dir=teacher --data_dir=data --shard=0/8      # one of eight that share the work
    bin/trainer --problem=NAME_distill --model=latent_nat --data_dir=data ...

A run that was interrupted goes on where it was and ends in the same bytes. When no part is missing any more, the
teacher is scored on the dev split with the same settings, and the data are generated; their manifest carries
its score and settings. The last line of stdout is a JSON object.
"""

import dataclasses
import json
import re

from absl import flags as absl_flags
from absl import logging

from t2t_vqem import config, files, registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.errors import UserError

flags.define("model_dir", "data_dir", "usr_dir", "gin_param", "checkpoint")
absl_flags.DEFINE_string(
    "shard", "0/1", "INDEX/COUNT: translate every COUNT-th part, from INDEX on (0-based)"
)
FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    del argv
    shard = _shard(FLAGS.shard)
    metadata = flags.configure_run()

    from t2t_vqem import search
    from t2t_vqem.decoding import distillation
    from t2t_vqem.decoding.translator import Translator
    from t2t_vqem.problems.distilled import SUFFIX
    from t2t_vqem.training import runs, strategy

    run, digest = runs.open_unchanged(FLAGS.model_dir, FLAGS.checkpoint, metadata)
    run.problem.require_content("text", "bin/distiller")
    base, train, data_dir = run.problem, run.train_config, metadata.data_dir
    if base.name.endswith(SUFFIX):
        raise UserError(f"{base.name} is distilled already; the teacher must be a run of the problem itself")
    runs.check_data(run)
    decoding = search.Settings()
    if decoding.compile:
        raise UserError(
            "decode.compile must be False here: compiled programs round otherwise, and which shapes are compiled "
            "depends on what a process met before, so that a run that goes on would not end in the same bytes"
        )
    settings = {"search": str(decoding), "decode": dataclasses.asdict(decoding)}
    flags.require_used()
    teacher = {"model": metadata.model, "step": run.step, "checkpoint": digest, **settings}
    # What else the outputs depend on: hparams without a variable, batches, and the type that "auto" means here.
    # What is given here counts by itself too: a plan of an older version does not know what is new in this one.
    given = config.bindings("\n".join(FLAGS.gin_param or []), without="decode")
    rest = {
        "dtype": strategy.compute_dtype(train.dtype),
        "configuration": config.bindings(config.operative(), without="decode"),
        "gin_param": sorted(f"{key} = {value}" for key, value in given.items()),
        "ngrams": run.ngrams,
    }
    distilled = registry.problems.get(base.name + SUFFIX)()
    distilled.require_teacher(data_dir, teacher)
    outputs = distilled.outputs(data_dir)
    outputs.begin({"problem": base.name, "data": base.fingerprint(data_dir), **teacher, **rest})
    translator = Translator(
        run.model, run.vocabulary, boundaries=train.boundaries, batch_tokens=train.batch_tokens
    )
    sources, _ = base.texts(base.train_split, data_dir)
    missing = distillation.translate(outputs, sources, translator, shard)
    try:
        unchanged = runs.checkpoint_digest(FLAGS.model_dir, FLAGS.checkpoint) == digest
    except (UserError, OSError):  # another took its place, or is taking it
        unchanged = False
    if not unchanged:
        logging.warning(
            "the teacher's checkpoint changed while it translated: what is made here is of the one of step %d that it "
            "began with, and no other run can go on with it",
            run.step,
        )
    result = {"problem": distilled.name, "lines": len(sources), "parts_missing": len(missing)}
    if missing:
        logging.info("distiller: parts %s are still to be made, by other shards", missing)
    else:
        with files.alone_in(outputs.folder):  # one of several shards that end together is the first
            if outputs.teacher is None:
                logging.info("distiller: all parts are there; scoring the teacher on %s", base.dev_split)
                inputs, references = base.texts(base.dev_split, data_dir)
                scores = base.score(list(translator.translate(inputs)), references)
                parts = enumerate(outputs.parts(len(sources)))
                cut = sum(outputs.read(part, sources[own.start : own.stop])[1] for part, own in parts)
                outputs.finish({**teacher, **rest, "truncated": cut, base.dev_split: scores})
        manifest = distilled.generate(data_dir)
        scores = manifest["teacher"][base.dev_split]
        result |= {"folder": distilled.folder(data_dir), "split": base.dev_split, **scores}
        result |= {"examples": manifest["splits"][base.train_split]["examples"], **settings}
    print(json.dumps(result, ensure_ascii=False))


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if index >= count:
        raise UserError(f'--shard is "{text}"; it must be INDEX/COUNT with INDEX below COUNT, e.g. 0/8')
    return index, count


if __name__ == "__main__":
    cli_main.run(main)

"""Counts the n-grams of a text in a run's vocabulary, so that what CTC writes is likely as a text too.

    bin/ngrams --model_dir=run                           # of the targets of the run's problem; of NAME_distill, NAME's
    bin/ngrams --model_dir=run --targets_of=wmt_ende     # of another problem's
    bin/ngrams --model_dir=run text.de more.de.gz        # of any text, a sentence a line
    bin/decoder --model_dir=run --gin_param='decode.lm_weight = 0.3' --gin_param='decode.blank_penalty = 2.0'

They go into the run's folder (ngrams.npz), in the place of those that are there, and are used where decode.lm_weight is
above 0. Where the run's data are there, the perplexity of the targets of its problem's dev split is told beside the
counts. A large corpus wants --least=2 or more: what is kept takes 16 bytes an n-gram wherever it is used. The last line
of stdout is one JSON object.
"""

import contextlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags as absl_flags
from absl import logging

from t2t_vqem import files, ngrams, progress, registry
from t2t_vqem.cli import flags
from t2t_vqem.cli import main as cli_main
from t2t_vqem.decoding.lines import TextInput, windows
from t2t_vqem.errors import UserError
from t2t_vqem.problems.vocabulary import Vocabulary

if TYPE_CHECKING:
    from t2t_vqem.problems.problem import Problem

flags.define("model_dir", "usr_dir", "data_dir")
absl_flags.DEFINE_string("targets_of", None, "the problem whose training targets are counted")
absl_flags.DEFINE_integer(
    "order", ngrams.MOST_ORDER, "tokens of the longest n-grams", lower_bound=2, upper_bound=ngrams.MOST_ORDER
)
absl_flags.DEFINE_integer(
    "least", 1, "leave out n-grams of three tokens and more that are seen less often", lower_bound=1
)
FLAGS = flags.FLAGS

_CHUNK = 4096  # sentences


def main(argv: list[str]) -> None:
    """Flags to library calls."""
    if argv and FLAGS.targets_of:
        raise UserError("either files or the targets of a problem are counted; leave out one of them")
    metadata = flags.configure_run()
    problem = registry.problems.get(metadata.problem)()
    problem.require_content("text", "bin/ngrams")
    counted = registry.problems.get(FLAGS.targets_of or getattr(problem, "base_name", problem.name))()
    counted.require_content("text", "--targets_of")

    from t2t_vqem.training.runs import VOCABULARY_FILE

    start = time.monotonic()
    vocabulary = Vocabulary.load(os.path.join(FLAGS.model_dir, VOCABULARY_FILE))
    ngrams.require_packable(vocabulary.size)
    path = os.path.join(FLAGS.model_dir, ngrams.FILE)
    files.check_writable(path)
    texts = _lines(argv) if argv else counted.texts(counted.train_split, metadata.data_dir)[1]
    found = ngrams.count(
        _encoded(vocabulary, texts),
        vocabulary.size,
        vocabulary.hash,
        order=FLAGS.order,
        least=FLAGS.least,
    )
    found.save(path)
    result = {"model_dir": FLAGS.model_dir, "file": path, "sentences": len(texts), "ngrams": len(found.keys)}
    result |= {"order": found.order, "digest": found.digest, "bytes": os.path.getsize(path)}
    result |= _perplexity(found, vocabulary, problem, metadata.data_dir)
    print(json.dumps(result | {"seconds": round(time.monotonic() - start, 1)}, ensure_ascii=False))


def _lines(paths: Sequence[str]) -> list[str]:
    """Returns the lines of files, those that are empty left out. Raises UserError naming file and line."""
    found = []
    for path in paths:
        with contextlib.closing(TextInput(path)) as text:
            lines = text.lines() if text.is_regular else itertools.chain.from_iterable(text.windows(_CHUNK))
            found += [line for line in lines if line.strip()]
    return found


def _encoded(vocabulary: Vocabulary, texts: Sequence[str]) -> Iterator[list[int]]:
    """Yields the ids of each of the texts."""
    counting = progress.Progress("ngrams", len(texts), "sentences")
    for chunk in windows(texts, _CHUNK):
        yield from vocabulary.encode(chunk)
        counting.made(len(chunk))


def _perplexity(
    found: ngrams.NGrams, vocabulary: Vocabulary, problem: "Problem", data_dir: str
) -> dict[str, str | float]:
    """Returns that of the targets of the problem's dev split, if they are there."""
    split = problem.dev_split
    try:
        _, targets = problem.texts(split, data_dir)
    except UserError as error:
        logging.warning("no perplexity is told: %s", error)
        return {}
    nats, tokens = found.nats(vocabulary.encode(targets))
    return {"split": split, "perplexity": round(math.exp(nats / tokens), 2)}


if __name__ == "__main__":
    cli_main.run(main, positional="[FILE ...]")

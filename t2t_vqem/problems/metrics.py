"""sacreBLEU and chrF of detokenised text, with the signatures that make them comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def sacrebleu_scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str | None]]
) -> dict[str, float | int | str]:
    """Returns {"bleu", "bleu_signature", "chrf", "chrf_signature", "sentences", "references_hash"}.

    And "bleu_brevity_penalty", the factor by which BLEU pays for outputs that are too short, 1 for none.

    Args:
      references: one or more complete lists; None where a sentence has no reference in a later list.

    Raises:
      ValueError: the lists differ in length or are empty.
    """
    import sacrebleu

    if not hypotheses or any(len(hypotheses) != len(column) for column in references):
        raise ValueError(f"{len(hypotheses)} hypotheses for {[len(c) for c in references]} references")
    bleu, chrf = sacrebleu.BLEU(tokenize="13a", lowercase=False), sacrebleu.CHRF()
    columns = [list(column) for column in references]
    bleu_score = bleu.corpus_score(list(hypotheses), columns)
    chrf_score = chrf.corpus_score(list(hypotheses), columns).score
    text = "\n".join(line for column in columns for line in column if line is not None)
    return {
        "bleu": bleu_score.score,
        "bleu_brevity_penalty": bleu_score.bp,
        "bleu_signature": str(bleu.get_signature()),
        "chrf": chrf_score,
        "chrf_signature": str(chrf.get_signature()),
        "sentences": len(hypotheses),
        "references_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
    }

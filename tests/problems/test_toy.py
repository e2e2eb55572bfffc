"""The toy grammar: sizes, splits, agreement, and that choices are made once a sentence."""

import random
from collections import defaultdict

import pytest

from t2t_vqem.problems import toy
from t2t_vqem.problems.toy import CHOICES, Choice, Clause, NounPhrase, Sentence, ToyEnDe

PEOPLE = {noun.english: noun for noun in toy._PEOPLE}
THINGS = {noun.english: noun for noun in toy._THINGS}
VERBS = {verb.infinitive: verb for verb in toy._VERBS}
PLAIN, PERFECT, LOFTY, FRONTED = (Choice(*bits) for bits in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))


@pytest.fixture(scope="module")
def splits():
    return {split: list(ToyEnDe().samples(split)) for split in ("train", "val", "test")}


def clause(verb="pick up", adverb="yesterday", modal=False):
    subject = NounPhrase(PEOPLE["teacher"], "old", True)
    return Clause(subject, VERBS[verb], NounPhrase(THINGS["car"], "red", False), adverb, modal)


def test_sizes_lengths_and_determinism(splits):
    assert {split: len(pairs) for split, pairs in splits.items()} == {
        "train": 20_000,
        "val": 500,
        "test": 500,
    }
    assert list(ToyEnDe().samples("val")) == splits["val"]
    lengths = {len(text.split()) for pairs in splits.values() for pair in pairs for text in pair}
    assert min(lengths) >= 4
    assert max(lengths) <= 20


def test_no_source_is_in_two_splits(splits):
    sources = {split: {source for source, _ in pairs} for split, pairs in splits.items()}
    assert not sources["train"] & sources["val"]
    assert not sources["train"] & sources["test"]
    assert not sources["val"] & sources["test"]


def test_sources_have_several_translations(splits):
    translations = defaultdict(set)
    for source, target in splits["train"]:
        translations[source].add(target)
    assert sum(len(targets) > 1 for targets in translations.values()) > 50
    counts = [len(toy.draw(random.Random(seed)).translations()) for seed in range(300)]
    assert set(counts) == {2, 4, 8}


def test_separable_verb_verb_second_and_agreement():
    sentence = Sentence(clause())
    assert sentence.english() == "The old teacher picked up a red car yesterday."
    assert sentence.german(PLAIN) == "Die alte Lehrerin holte gestern ein rotes Auto ab."
    assert sentence.german(FRONTED) == "Gestern holte die alte Lehrerin ein rotes Auto ab."
    assert sentence.german(PERFECT) == "Die alte Lehrerin hat gestern ein rotes Auto abgeholt."
    assert sentence.german(LOFTY) == "Der alte Lehrer holte gestern einen roten Wagen ab."


def test_verbs_end_subordinate_clauses():
    speaker = NounPhrase(PEOPLE["man"], None, True)
    sentence = Sentence(clause(adverb=None), speaker, "said")
    assert sentence.german(PLAIN) == "Der Mann sagte, dass die alte Lehrerin ein rotes Auto abholte."
    assert (
        sentence.german(PERFECT) == "Der Mann hat gesagt, dass die alte Lehrerin ein rotes Auto abgeholt hat."
    )
    modal = Sentence(clause(adverb=None), conjunction="because", second=clause("see", None, modal=True))
    assert modal.german(PLAIN).endswith(", weil die alte Lehrerin ein rotes Auto sehen wollte.")


def test_choices_hold_for_the_whole_sentence():
    compound = Sentence(clause(), conjunction="because", second=clause("see"))
    for choice in CHOICES:
        german = compound.german(choice)
        assert german.count("Wagen") == 2 * choice.lofty
        assert german.count("Auto") == 2 * (not choice.lofty)
        assert german.count(" hat") == 2 * choice.perfect
        assert german.startswith("Gestern") == choice.fronted
    assert len(compound.translations()) == 8


def test_score_takes_every_translation_and_punishes_mixtures(splits):
    references = [target for _, target in splits["val"]]
    rng = random.Random(0)
    sentences = [sentence for sentence, _ in toy._sentences("val")]
    other = [rng.choice(sentence.translations()) for sentence in sentences]
    scores = ToyEnDe().score(other, references)
    assert scores["bleu"] == pytest.approx(100)
    assert scores["valid"] == 100
    assert "nrefs:var" in scores["bleu_signature"]

    def mixture(sentence):
        columns = zip(*(rng.choice(sentence.translations()).split() for _ in range(2)), strict=False)
        return " ".join(rng.choice(column) for column in columns)

    mixed = ToyEnDe().score([mixture(sentence) for sentence in sentences], references)
    assert mixed["bleu"] < 85
    assert mixed["valid"] < 50

"""A toy translation problem whose sources have several translations, for tests and first steps without data.

The German side exercises what makes English to German hard: verbs that go to the end of subordinate clauses,
separable verbs, verb-second order behind a fronted adverb, and articles and adjectives that agree in gender
and case. Each sentence is translated in one of eight ways at random, and the choice holds for all of it:

  tense      the simple past ("sah") or the perfect ("hat ... gesehen"), in every clause
  wording    the everyday or the lofty noun ("das Auto", "der Wagen"), with articles and endings to match
  order      the adverb in the middle or in front, with the verb before the subject

So the words of a translation depend on each other given the source, and a model that predicts them
independently mixes translations; one latent choice a sentence explains everything.
"""

from __future__ import annotations

import functools
import itertools
import random
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t2t_vqem import registry
from t2t_vqem.problems.metrics import sacrebleu_scores
from t2t_vqem.problems.translation import TranslationProblem


class Noun(NamedTuple):
    """An English noun and its two German ones, (word, gender) each: everyday and lofty."""

    english: str
    everyday: tuple[str, str]
    lofty: tuple[str, str]


class Verb(NamedTuple):
    """An English verb (past, infinitive) and its German forms; `particle` splits off in main clauses."""

    past: str
    infinitive: str
    particle: str
    german_past: str
    participle: str
    german_infinitive: str


class Choice(NamedTuple):
    """One way to translate a sentence."""

    perfect: bool
    lofty: bool
    fronted: bool


CHOICES = tuple(Choice(*bits) for bits in itertools.product((False, True), repeat=3))

_PEOPLE = (
    Noun("woman", ("Frau", "f"), ("Dame", "f")),
    Noun("man", ("Mann", "m"), ("Herr", "m")),
    Noun("girl", ("Mädchen", "n"), ("Maid", "f")),
    Noun("child", ("Kind", "n"), ("Sprössling", "m")),
    Noun("doctor", ("Arzt", "m"), ("Ärztin", "f")),
    Noun("teacher", ("Lehrerin", "f"), ("Lehrer", "m")),
    Noun("neighbour", ("Nachbar", "m"), ("Nachbarin", "f")),
    Noun("painter", ("Maler", "m"), ("Malerin", "f")),
)
_THINGS = (
    Noun("car", ("Auto", "n"), ("Wagen", "m")),
    Noun("letter", ("Brief", "m"), ("Schreiben", "n")),
    Noun("picture", ("Bild", "n"), ("Aufnahme", "f")),
    Noun("door", ("Tür", "f"), ("Tor", "n")),
    Noun("coat", ("Jacke", "f"), ("Mantel", "m")),
    Noun("bag", ("Tasche", "f"), ("Beutel", "m")),
    Noun("boat", ("Boot", "n"), ("Kahn", "m")),
    Noun("phone", ("Telefon", "n"), ("Apparat", "m")),
    Noun("book", ("Buch", "n"), ("Band", "m")),
    Noun("lamp", ("Lampe", "f"), ("Leuchter", "m")),
    Noun("meal", ("Essen", "n"), ("Speise", "f")),
    Noun("hat", ("Mütze", "f"), ("Hut", "m")),
)
_ADJECTIVES = {
    "old": "alt",
    "new": "neu",
    "small": "klein",
    "big": "groß",
    "red": "rot",
    "green": "grün",
    "beautiful": "schön",
    "strange": "seltsam",
}
_VERBS = (
    Verb("saw", "see", "", "sah", "gesehen", "sehen"),
    Verb("found", "find", "", "fand", "gefunden", "finden"),
    Verb("painted", "paint", "", "malte", "gemalt", "malen"),
    Verb("sold", "sell", "", "verkaufte", "verkauft", "verkaufen"),
    Verb("carried", "carry", "", "trug", "getragen", "tragen"),
    Verb("loved", "love", "", "liebte", "geliebt", "lieben"),
    Verb("picked up", "pick up", "ab", "holte", "abgeholt", "abholen"),
    Verb("noticed", "notice", "wahr", "nahm", "wahrgenommen", "wahrnehmen"),
    Verb("brought along", "bring along", "mit", "brachte", "mitgebracht", "mitbringen"),
    Verb("threw away", "throw away", "weg", "warf", "weggeworfen", "wegwerfen"),
    Verb("looked at", "look at", "an", "sah", "angesehen", "ansehen"),
    Verb("handed over", "hand over", "ab", "gab", "abgegeben", "abgeben"),
)
_ADVERBS = {
    "yesterday": "gestern",
    "later": "später",
    "often": "oft",
    "suddenly": "plötzlich",
    "then": "dann",
}
_SPEECH = {
    "said": ("sagte", "gesagt"),
    "thought": ("dachte", "gedacht"),
    "heard": ("hörte", "gehört"),
    "knew": ("wusste", "gewusst"),
}
_CONJUNCTIONS = {"because": "weil", "although": "obwohl", "before": "bevor", "while": "während"}

# article and ending of the adjective behind it, by case and gender
_DEFINITE = {
    "nominative": {"m": ("der", "e"), "f": ("die", "e"), "n": ("das", "e")},
    "accusative": {"m": ("den", "en"), "f": ("die", "e"), "n": ("das", "e")},
}
_INDEFINITE = {
    "nominative": {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")},
    "accusative": {"m": ("einen", "en"), "f": ("eine", "e"), "n": ("ein", "es")},
}


class NounPhrase(NamedTuple):
    noun: Noun
    adjective: str | None
    definite: bool

    def english(self) -> str:
        words = [self.adjective] if self.adjective else []
        words.append(self.noun.english)
        article = "the" if self.definite else "an" if words[0][0] in "aeiou" else "a"
        return " ".join([article, *words])

    def german(self, case: str, choice: Choice) -> list[str]:
        word, gender = self.noun.lofty if choice.lofty else self.noun.everyday
        article, ending = (_DEFINITE if self.definite else _INDEFINITE)[case][gender]
        adjective = [_ADJECTIVES[self.adjective] + ending] if self.adjective else []
        if word == "Herr" and case == "accusative":  # the one weak noun
            word = "Herrn"
        return [article, *adjective, word]


class Clause(NamedTuple):
    """Who did what, and perhaps when; `modal` wants to do it."""

    subject: NounPhrase
    verb: Verb
    object: NounPhrase
    adverb: str | None
    modal: bool

    def english(self) -> str:
        verb = f"wanted to {self.verb.infinitive}" if self.modal else self.verb.past
        words = [self.subject.english(), verb, self.object.english()]
        return " ".join([*words, self.adverb] if self.adverb else words)

    def _verbs(self, choice: Choice) -> tuple[str, str]:
        """Returns the finite verb and what stands at the end of a main clause."""
        if self.modal:
            return "wollte", self.verb.german_infinitive
        if choice.perfect:
            return "hat", self.verb.participle
        return self.verb.german_past, self.verb.particle

    def main(self, choice: Choice) -> list[str]:
        finite, final = self._verbs(choice)
        subject = self.subject.german("nominative", choice)
        adverb = [_ADVERBS[self.adverb]] if self.adverb else []
        front, middle = (adverb, subject) if adverb and choice.fronted else (subject, adverb)
        words = [*front, finite, *middle, *self.object.german("accusative", choice)]
        return [*words, final] if final else words

    def subordinate(self, choice: Choice) -> list[str]:
        finite, final = self._verbs(choice)
        adverb = [_ADVERBS[self.adverb]] if self.adverb else []
        subject, object_ = self.subject.german("nominative", choice), self.object.german("accusative", choice)
        whole = choice.perfect or self.modal
        return [*subject, *adverb, *object_, *([final, finite] if whole else [final + finite])]


class Sentence(NamedTuple):
    """A clause alone, reported by someone, or with another behind a conjunction."""

    clause: Clause
    speaker: NounPhrase | None = None
    speech: str | None = None
    conjunction: str | None = None
    second: Clause | None = None

    def english(self) -> str:
        text = self.clause.english()
        if self.speaker:
            text = f"{self.speaker.english()} {self.speech} that {text}"
        if self.second:
            text = f"{text} {self.conjunction} {self.second.english()}"
        return _punctuated(text)

    def german(self, choice: Choice) -> str:
        if self.speaker:
            past, participle = _SPEECH[self.speech]
            said = ["hat", participle] if choice.perfect else [past]
            words = [*self.speaker.german("nominative", choice), *said]
            text = f"{' '.join(words)}, dass {' '.join(self.clause.subordinate(choice))}"
        else:
            text = " ".join(self.clause.main(choice))
        if self.second:
            text = f"{text}, {_CONJUNCTIONS[self.conjunction]} {' '.join(self.second.subordinate(choice))}"
        return _punctuated(text)

    def translations(self) -> list[str]:
        """Returns every valid translation once, in the order of `CHOICES`."""
        return list(dict.fromkeys(self.german(choice) for choice in CHOICES))


def draw(rng: random.Random) -> Sentence:
    """Returns a random sentence."""
    kind = rng.choice(("plain", "plain", "reported", "compound"))
    # two full clauses with every adjective and adverb would pass twenty words
    clause = _draw_clause(rng, adjectives=kind != "compound")
    if kind == "reported":
        return Sentence(clause, _draw_phrase(rng, _PEOPLE, True), rng.choice(list(_SPEECH)))
    if kind == "compound":
        second = _draw_clause(rng, adjectives=False)
        return Sentence(clause, conjunction=rng.choice(list(_CONJUNCTIONS)), second=second)
    return Sentence(clause)


def _draw_clause(rng: random.Random, adjectives: bool) -> Clause:
    subject = _draw_phrase(rng, _PEOPLE, adjectives)
    adverb = rng.choice(list(_ADVERBS)) if rng.random() < 0.6 else None
    object_ = _draw_phrase(rng, _THINGS, adjectives)
    return Clause(subject, rng.choice(_VERBS), object_, adverb, modal=rng.random() < 0.2)


def _draw_phrase(rng: random.Random, nouns: Sequence[Noun], adjectives: bool) -> NounPhrase:
    adjective = rng.choice(list(_ADJECTIVES)) if adjectives and rng.random() < 0.5 else None
    return NounPhrase(rng.choice(nouns), adjective, rng.random() < 0.6)


def _punctuated(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_SIZES = {"train": 20_000, "val": 500, "test": 500}


@registry.problems.register("toy_ende")
class ToyEnDe(TranslationProblem):
    """20,000 pairs to train on, 500 to validate and 500 to test, always the same; no source is in two splits.

    Any of a sentence's translations is right, so `score` takes them all as references and adds "valid", the
    share of hypotheses, in percent, that are one of them to the letter.
    """

    name = "toy_ende"
    vocab_size = 512
    model_type = "bpe"  # so few words leave a unigram model with fragments; these pieces are whole words

    def samples(self, split: str) -> Iterator[tuple[str, str]]:
        for sentence, choice in _sentences(split):
            yield sentence.english(), sentence.german(choice)

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float | int | str]:
        translations = [_translations().get(reference, [reference]) for reference in references]
        # the reference itself first, since every sentence must have one in the first column
        rows = [[r, *(t for t in all_ if t != r)] for r, all_ in zip(references, translations, strict=True)]
        columns = list(itertools.zip_longest(*rows))
        valid = sum(h in row for h, row in zip(hypotheses, rows, strict=True))
        return sacrebleu_scores(hypotheses, columns) | {"valid": 100.0 * valid / len(rows)}


def _sentences(split: str) -> Iterator[tuple[Sentence, Choice]]:
    """Yields the sentences of a split and the way to translate each; those to judge by are all different."""
    rng = random.Random(f"toy_ende {split}")
    seen: set[str] = set()
    count = 0
    while count < _SIZES[split]:
        sentence, choice = draw(rng), rng.choice(CHOICES)
        source = sentence.english()
        if _split_of(source) != split or source in seen:
            continue
        if split != "train":
            seen.add(source)
        count += 1
        yield sentence, choice


def _split_of(source: str) -> str:
    """Returns the one split that an English sentence may be in: a tenth of them are not for training."""
    return {0: "val", 1: "test"}.get(zlib.crc32(source.encode()) % 20, "train")


@functools.cache
def _translations() -> dict[str, list[str]]:
    """Returns all translations of the validation and test sentences, by the one drawn as reference."""
    held_out = itertools.chain(_sentences("val"), _sentences("test"))
    return {sentence.german(choice): sentence.translations() for sentence, choice in held_out}

import dataclasses
import pathlib
import re
import shlex

import pytest
import tensorflow as tf

from t2t_vqem import config
from t2t_vqem.errors import UserError
from t2t_vqem.evaluation import comparison
from t2t_vqem.evaluation.comparison import Competitor, Entry
from t2t_vqem.search import Settings
from t2t_vqem.training.runs import Run
from t2t_vqem.training.train_config import TrainConfig


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("runs/a", Entry("a", "runs/a")),
        ("runs/a/", Entry("a", "runs/a/")),
        ("AR beam 4=runs/a,decode.beam_size=4", Entry("AR beam 4", "runs/a", None, ("decode.beam_size = 4",))),
        ("m=5 = runs/b=c", Entry("m", "5 = runs/b=c")),
        ("x=a, checkpoint = latest", Entry("x", "a", "latest")),
        ("runs/a,decode.beam_size=4", Entry("a, decode.beam_size=4", "runs/a", None, ("decode.beam_size = 4",))),
        (
            'x=a,b,train.boundaries=(8, 16),train.dtype="float32"',
            Entry("x", "a,b", None, ("train.boundaries = (8, 16)", 'train.dtype = "float32"')),
        ),
    ],
)  # fmt: skip
def test_the_notation_of_a_run(text, entry):
    assert Entry.parse(text) == entry


def test_the_examples_of_the_readme_are_in_that_notation():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"bin/evaluator --compare (?:.*\\\n)*.*", readme)
    assert examples
    for example in examples:
        words = shlex.split(example.replace("\\\n", " "))[2:]
        assert len(comparison.parse_entries([word for word in words if not word.startswith("--")])) > 1


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "no runs"),
        ([""], "names no run"),
        (["x="], "names no run"),
        (["=runs/a"], "names no run"),
        (["runs/a,beam_size=4"], 'no setting "beam_size"'),
        (["AR, greedy=runs/a"], 'no setting "greedy".* a name holds no comma'),
        (["x=runs/a", "x=runs/b"], 'two runs are called "x"'),
        (["runs/a", "other/a"], 'two runs are called "a"'),
    ],
)
def test_bad_notation(texts, words):
    with pytest.raises(UserError, match=words):
        comparison.parse_entries(texts)


class Copies:
    """Translates a source into itself, in so many calls."""

    def __init__(self, calls=1, **decoding):
        self.decoding, self.calls = Settings(**decoding), calls

    def infer(self, features):
        return {"outputs": features["inputs"], "calls": tf.constant(self.calls)}


class Silent(Copies):
    def infer(self, features):
        return {"outputs": tf.zeros_like(features["inputs"])}


class Breaks(Copies):
    def infer(self, features):
        tf.debugging.assert_less(features["inputs"], 0, "no room for this")
        return super().infer(features)


class Refuses(Copies):
    def infer(self, features):
        raise UserError("this model cannot search so")


@pytest.fixture
def competitor(echo_data):
    problem, data_dir = echo_data
    vocabulary = problem.vocabulary(data_dir)
    train_config = TrainConfig(boundaries=(8, 64))

    def make(name, model, registered="copies", **changed):
        names = {"problem": "echo", "model": registered, "data_dir": data_dir, "usr_dir": None, "seed": 0}
        hashes = {"vocabulary_hash": vocabulary.hash, "data_fingerprint": ""}
        metadata = config.RunMetadata(**names, **hashes)
        run = Run(problem, model, vocabulary, metadata, train_config, 7)._replace(**changed)
        return Competitor(Entry(name, f"runs/{name}"), run, model, "best")

    return make


def test_quality_and_speed_side_by_side(competitor, echo_data):
    several = [competitor("a", Copies(2)), competitor("b", Copies(5)), competitor("c", Copies(1))]
    report = comparison.compare(several, "val", single=4)
    assert [row["name"] for row in report["runs"]] == ["a", "b", "c"]
    assert [row["decoder_calls"] for row in report["runs"]] == [2, 5, 1]
    assert report["reference"] == "a"
    assert report["sentences"] == 53
    sources, references = echo_data[0].texts("val", echo_data[1])
    for row in report["runs"]:
        assert row.items() >= echo_data[0].score(sources, references).items()
        ratio = report["runs"][0]["latency_p50_ms"] / row["latency_p50_ms"]
        assert row["speed_up"] == pytest.approx(ratio)
        assert row["latency_sentences"] == 4
        assert row["step"] == 7
        assert row["decoding"]["beam_size"] == 1
    head, rule, *rows = comparison.markdown(report).split("\n")[:5]
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    assert head.startswith("| run ")
    assert rows[1].split("|")[1:3] == [" b   ", f" {report['runs'][1]['bleu']:.2f} "]
    assert report["runs"][0]["bleu_signature"] in comparison.markdown(report)


def test_the_reference_is_greedy_and_autoregressive_where_there_is_one(competitor):
    several = [
        competitor("latents", Copies()),
        competitor("beam", Copies(beam_size=4), "transformer"),
        competitor("samples", Copies(temperature=1.0, num_candidates=3), "transformer"),
        competitor("greedy", Copies(), "transformer"),
        competitor("deep", Copies(), "transformer"),
    ]
    report = comparison.compare(several, "val", single=1)
    assert report["reference"] == "greedy"
    assert report["runs"][3]["speed_up"] == 1.0


@pytest.mark.parametrize(
    ("model", "words"), [(Silent(), "all of its translations are empty"), (Breaks(), "no room for this")]
)
def test_a_run_that_fails_has_no_figures(competitor, model, words):
    report = comparison.compare([competitor("bad", model), competitor("good", Copies())], "val", single=2)
    bad, good = report["runs"]
    assert words in bad["error"]
    assert "\n" not in bad["error"]
    assert not {"bleu", "chrf", "latency_p50_ms", "speed_up", "parameters", "decoder_calls"} & bad.keys()
    assert good["bleu"] > 0
    assert report["reference"] == "good"
    text = comparison.markdown(report)
    assert set(text.split("\n")[2].split("|")[2:-1]) <= {" " * i + "–" + " " for i in range(1, 20)}
    assert f"failed: {bad['error']}" in text
    alone = comparison.compare([competitor("bad", model)], "val")
    assert "reference" not in alone
    assert "failed" in comparison.markdown(alone)


def test_what_the_user_can_mend_names_the_run(competitor):
    with pytest.raises(UserError, match=r'^"second": this model cannot'):
        comparison.compare([competitor("first", Copies()), competitor("second", Refuses())], "val", single=1)


def test_the_texts_must_be_the_same_and_the_names_need_not(competitor, echo_data, tmp_path):
    class Distilled(type(echo_data[0])):
        name = "echo_distill"

    class Other(type(echo_data[0])):
        name = "other"

        def samples(self, split):
            yield from list(super().samples(split))[1:]

    several = [competitor("first", Copies())]
    for problem in (Distilled(), Other()):
        problem.generate(str(tmp_path), workers=1)
        metadata = dataclasses.replace(several[0].run.metadata, problem=problem.name, data_dir=str(tmp_path))
        several.append(competitor(problem.name, Copies(), problem=problem, metadata=metadata))
    assert len(comparison.compare(several[:2], "val", single=1)["runs"]) == 2
    with pytest.raises(UserError, match='"other" and "first" cannot be compared: the texts of val'):
        comparison.compare(several, "val")


def test_missing_split_and_data(competitor, tmp_path):
    with pytest.raises(UserError, match=r'"a": .*no split "tset"'):
        comparison.compare([competitor("a", Copies())], "tset")
    entry = competitor("a", Copies())
    away = dataclasses.replace(entry.run.metadata, data_dir=str(tmp_path))
    with pytest.raises(UserError, match='"b": '):
        comparison.compare([entry, competitor("b", Copies(), metadata=away)], "val")

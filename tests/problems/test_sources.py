"""The problems made of published files: which files they find, and what they say when they do not."""

import gzip
import math
import pathlib

import pytest

from t2t_vqem import registry
from t2t_vqem.errors import UserError
from t2t_vqem.problems.multi30k import Multi30kEnDe
from t2t_vqem.problems.tatoeba import TatoebaEnDe
from t2t_vqem.problems.text_pair import TextPair
from t2t_vqem.problems.wmt import WmtEnDe

ROOT = pathlib.Path(__file__).parents[2]


def put(folder, name, text="line\n"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def wmt(source_dir, *names):
    for name in names:
        for language in ("en", "de"):
            put(source_dir, name.replace("LANG", language), f"{name} {language}\n")
    problem = WmtEnDe()
    problem.source_dir = str(source_dir)
    return problem


TESTS = ("newstest2013.LANG.gz", "newstest2014-deen.LANG.gz")


def test_wmt_takes_the_published_corpora_wherever_the_archives_put_them(tmp_path):
    corpora = (
        "training/europarl-v7.de-en.LANG",
        "commoncrawl.de-en.LANG.gz",
        "training/news-commentary-v9.de-en.LANG",
        "training-parallel-nc-v13/news-commentary-v13.de-en.LANG",
    )
    problem = wmt(tmp_path, *corpora, *TESTS)
    sources = [pathlib.Path(source).name for source, _ in problem.files("train")]
    assert sources == ["europarl-v7.de-en.en", "commoncrawl.de-en.en.gz", "news-commentary-v13.de-en.en"]
    assert [target for _, target in problem.samples("train")] == [f"{corpora[i]} de" for i in (0, 1, 3)]
    assert list(problem.samples("newstest2014")) == [(f"{TESTS[1]} en", f"{TESTS[1]} de")]


def test_wmt_prefers_one_train_file(tmp_path):
    problem = wmt(tmp_path, "train.LANG", "commoncrawl.de-en.LANG", *TESTS)
    assert list(problem.samples("train")) == [("train.LANG en", "train.LANG de")]


def test_wmt_reads_test_sets_in_sgml(tmp_path):
    put(
        tmp_path,
        "dev/newstest2013-src.en.sgm",
        '<doc>\n<seg id="1"> A &amp; B </seg>\n<seg id="2">C</seg>\n</doc>\n',
    )
    put(tmp_path, "dev/newstest2013-ref.de.sgm", '<doc>\n<seg id="1">D</seg>\n<seg id="2">E</seg>\n</doc>\n')
    assert list(wmt(tmp_path).samples("newstest2013")) == [("A & B", "D"), ("C", "E")]


def test_wmt_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"neither train\.en and train\.de nor any of europarl-v7"):
        wmt(tmp_path, *TESTS).files("train")
    put(tmp_path, "commoncrawl.de-en.en")
    with pytest.raises(UserError, match=r"has no commoncrawl\.de-en\.de"):
        wmt(tmp_path).files("train")
    (tmp_path / "newstest2013.de.gz").unlink()
    with pytest.raises(UserError, match=r"lacks newstest2013\.en or newstest2013\.de"):
        wmt(tmp_path).files("newstest2013")


def test_wmt_without_network_points_to_source_dir(tmp_path, monkeypatch):
    import tensorflow_datasets

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host\nand much more")

    monkeypatch.setattr(tensorflow_datasets, "load", offline)
    with pytest.raises(UserError, match=r"no route to host\); give --source_dir") as caught:
        WmtEnDe().generate(str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_wmt_from_tensorflow_datasets(monkeypatch):
    import tensorflow_datasets

    def load(name, split, shuffle_files):
        assert (name, split, shuffle_files) == ("wmt14_translate/de-en", "validation", False)
        return [{"en": b"one", "de": "größer".encode()}]

    monkeypatch.setattr(tensorflow_datasets, "load", load)
    monkeypatch.setattr(tensorflow_datasets, "as_numpy", lambda dataset: dataset)
    assert list(WmtEnDe().samples("newstest2013")) == [("one", "größer")]


@pytest.mark.parametrize(
    ("problem", "folder", "train", "tests"),
    [
        (Multi30kEnDe, "multi30k", 29_000, ("test_2016_flickr", "test_2017_flickr")),
        (TatoebaEnDe, "tatoeba", 164_101, ("test",)),
    ],
)
def test_the_published_files_are_whole(data_root, problem, folder, train, tests):
    problem = problem()
    problem.source_dir = str(data_root / folder)
    assert sum(1 for _ in problem.samples("train")) == train
    assert problem.test_splits == tests
    assert all(len(list(problem.samples(split))) >= 1000 for split in problem.splits)


def test_files_are_asked_for(tmp_path):
    with pytest.raises(UserError, match=r"multi30k_ende is made from files; give --source_dir"):
        Multi30kEnDe().generate(str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"holds no train\.en\[\.gz\]; is --source_dir right"):
        TatoebaEnDe().generate(str(tmp_path / "data"), str(tmp_path))
    assert not (tmp_path / "data").exists()


def test_text_pair_names_the_binding_that_is_missing():
    with pytest.raises(UserError, match=r"text_pair\.train_target"):
        TextPair(train_source="a")
    with pytest.raises(UserError, match=r"text_pair\.test_target"):
        TextPair("a", "b", "c", "d", test_source="e")
    assert TextPair("a", "b", "c", "d").splits == ("train", "dev")
    assert TextPair("a", "b", "c", "d", "e", "f").test_splits == ("test",)


def test_text_pair_starts_from_source_dir(tmp_path):
    put(tmp_path, "a.fr", "un\n")
    put(tmp_path, "a.it", "uno\n")
    problem = TextPair("a.fr", "a.it", "a.fr", str(tmp_path / "a.it"))
    problem.source_dir = str(tmp_path)
    assert list(problem.samples("train")) == list(problem.samples("dev")) == [("un", "uno")]


def test_vocab_size_is_a_gin_parameter():
    import gin

    gin.parse_config("multi30k_ende.vocab_size = 123")
    assert registry.problems.get("multi30k_ende")().vocab_size == 123
    assert Multi30kEnDe.vocab_size == 4000


def test_the_example_is_a_problem(tmp_path):
    registry.load_usr_dir(str(ROOT / "examples"))
    problem = registry.problems.get("dates_ende")()
    assert problem.name == "dates_ende"
    manifest = problem.generate(str(tmp_path))
    assert manifest["splits"]["train"]["examples"] == 5000
    assert len((ROOT / "examples" / "dates.py").read_text().splitlines()) < 35


def test_scores_carry_signatures(small):
    scores = small.score(["A cat.", "b"], ["A cat.", "c"])
    assert scores["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
    assert scores["sentences"] == 2
    assert scores["bleu_brevity_penalty"] == 1.0
    short = small.score(["a small"], ["a small house ."])
    assert short["bleu_brevity_penalty"] == pytest.approx(math.exp(1 - 4 / 2))
    assert scores["references_hash"] == small.score(["x", "y"], ["A cat.", "c"])["references_hash"]
    assert scores["references_hash"] != small.score(["x", "y"], ["A cat.", "d"])["references_hash"]
    with pytest.raises(ValueError, match="1 hypotheses"):
        small.score(["one"], ["one", "two"])

"""The hparams of training: checked when they are made, bound by gin."""

import gin
import pytest

from t2t_vqem.errors import UserError
from t2t_vqem.training.train_config import TrainConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_tokens", 0),
        ("batch_tokens", 10.5),
        ("steps_per_call", True),
        ("boundaries", ()),
        ("boundaries", (8, 8)),
        ("boundaries", (16, 8)),
        ("boundaries", 8),
        ("learning_rate", "fast"),
        ("learning_rate", float("nan")),
        ("decay", "linear"),
        ("dtype", "float16"),
        ("compile", "yes"),
        ("compile", 1),
        ("clip_norm", -1.0),
        ("ema_decay", 1.0),
        ("ema_decay", True),
        ("live_codes_alarm", 1.0),
        ("live_codes_alarm", -0.1),
        ("best_metric", None),
    ],
)
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"train\.{field} is "):
        TrainConfig(**{field: value})


def test_early_stop_needs_a_metric():
    with pytest.raises(UserError, match="early_stop_patience needs"):
        TrainConfig(early_stop_patience=1, best_metric="")


def test_gin_binds_it_and_boundaries_become_a_tuple():
    with gin.unlock_config():
        gin.parse_config("train.boundaries = [4, 8]\ntrain.compile = True")
    try:
        config = TrainConfig()
        assert config.boundaries == (4, 8)
        assert config.compile is True
        assert "train.boundaries = [4, 8]" in gin.operative_config_str()
    finally:
        gin.clear_config()


def test_due_at_the_first_call_past_each_multiple():
    config = TrainConfig(steps_per_call=4, train_steps=10)
    assert [step for step in range(0, 41, 4) if config.due(step, 10)] == [12, 20, 32, 40]
    assert [step for step in range(0, 17, 4) if config.due(step, 1)] == [4, 8, 12, 16]
    assert config.last_step == 12


@pytest.mark.parametrize(
    ("metric", "value", "than", "better"),
    [
        ("bleu", 2.0, 1.0, True),
        ("latent_nll", 2.0, 1.0, False),
        ("codebook_perplexity", 2.0, 1.0, True),
        ("bleu", float("nan"), 1.0, False),
        ("bleu", 1.0, float("nan"), True),
        ("latent_nll", float("nan"), float("nan"), False),
    ],
)
def test_which_value_is_better(metric, value, than, better):
    assert TrainConfig(best_metric=metric).better(value, than) == better

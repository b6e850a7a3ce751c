from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tiny import bert

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.data.ragged import Ragged
from lightning_distill.run.data import check_lengths
from lightning_distill.run.metrics import check_metric_task, follow_task, without_agreement
from lightning_distill.run.trainer import check_training, optimization


def data(*rows, teacher=None):
    ids = Ragged.of(rows)
    other = ids if teacher is None else Ragged.of(teacher)
    split = SimpleNamespace(student={"input_ids": ids}, teacher={"input_ids": other})
    tokenizer = None if teacher is None else object()
    return SimpleNamespace(splits={"train": split}, teacher_tokenizer=tokenizer)


def test_a_token_that_a_model_does_not_know_is_refused_wherever_it_is():
    known = data([1, 2], [3, 59])
    check_lengths(known, student=bert(1, 8), teacher=None)
    with pytest.raises(ValueError, match="student knows 59 token ids, but the data holds id 59"):
        check_lengths(known, student=bert(1, 8, vocab_size=59))
    # Each side has a tokenizer of its own.
    own = data([1, 2], teacher=[[1], [70]])
    check_lengths(own, student=bert(1, 8), teacher=bert(1, 8, vocab_size=71))
    with pytest.raises(ValueError, match="teacher knows 60 token ids, but the data holds id 70"):
        check_lengths(own, student=bert(1, 8), teacher=bert(1, 8))


def test_a_row_that_a_model_cannot_read_whole_is_refused():
    with pytest.raises(ValueError, match="student reads at most 32 tokens, but the data has .* 33"):
        check_lengths(data([1] * 33), student=bert(1, 8))


def metric_of(task: str, target: str, **more):
    cfg = OmegaConf.create({"task": task})
    check_metric_task(cfg, "m", OmegaConf.create({"_target_": target, **more}))


@pytest.mark.parametrize("kind", ["Perplexity", "BitsPerByte", "ForwardKL", "ReverseKL"])
def test_metrics_of_language_models_fit_their_task(kind):
    target = f"lightning_distill.metrics.{kind}"
    metric_of("language_modelling", target)
    for task in ("multi_label", "regression"):
        with pytest.raises(ValueError, match=f"{kind}. measures a softmax.*data.task={task}"):
            metric_of(task, target)


def test_metrics_of_other_tasks_are_refused_for_language_models():
    metric_of("language_modelling", "torchmetrics.classification.MulticlassAccuracy", num_classes=9)
    for kind in ("classification.MulticlassAccuracy", "PearsonCorrCoef"):
        with pytest.raises(ValueError, match=r"task=language_modelling.*metrics=\[perplexity\]"):
            metric_of("language_modelling", f"torchmetrics.{kind}")
    with pytest.raises(ValueError, match=r"whole rows at once.*metrics=\[perplexity\]"):
        metric_of("language_modelling", "torchmetrics.text.Perplexity")


def test_without_a_teacher_nothing_is_compared_with_it():
    targets = {
        "perplexity": "lightning_distill.metrics.Perplexity",
        "agreement": "lightning_distill.Agreement",
        "forward_kl": "lightning_distill.metrics.ForwardKL",
        "accuracy": "torchmetrics.classification.MulticlassAccuracy",
    }
    cfg = OmegaConf.create({"metrics": {n: {"_target_": t} for n, t in targets.items()}})
    without_agreement(cfg)
    assert [n for n, node in cfg.metrics.items() if node is not None] == ["perplexity", "accuracy"]


PACKAGED = Path(__file__).parent.parent.parent / "conf" / "metrics"


def default_metrics(task: str, **changes):
    nodes = {}
    for name in ("accuracy", "agreement"):
        nodes |= OmegaConf.to_container(OmegaConf.load(PACKAGED / f"{name}.yaml"))
    cfg = OmegaConf.create({"task": task, "num_labels": 3, "metrics": nodes | changes})
    follow_task(cfg, "metrics")
    return list(cfg.metrics), [name for name, node in cfg.metrics.items() if node is not None]


def test_metrics_that_nobody_touched_are_those_of_the_task():
    numbers = ["pearson", "mean_squared_error", "agreement"]
    assert default_metrics("regression") == (numbers, numbers)
    assert default_metrics("classification")[0] == ["accuracy", "agreement"]
    assert default_metrics("token_classification")[0] == ["entity_f1", "agreement"]
    # What was switched off stays off, and what was set is the user's.
    assert default_metrics("regression", agreement=None)[1] == numbers[:2]
    own = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 7}
    assert default_metrics("regression", accuracy=own)[0] == ["accuracy", "agreement"]


@pytest.mark.parametrize("task", ["token_classification", "language_modelling"])
def test_classes_of_tokens_are_classes(task):
    metric_of(task, "torchmetrics.classification.MulticlassAccuracy", num_classes=9)


def test_spans_of_words_are_none_of_a_classifier():
    metric_of("token_classification", "lightning_distill.metrics.EntityF1")
    with pytest.raises(ValueError, match="EntityF1. measures data.task=token_classification"):
        metric_of("classification", "lightning_distill.metrics.EntityF1")


def config(*typed):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        return compose("main", ["output_dir=x", *typed])


def test_an_optimizer_that_is_no_function_of_the_parameters_is_refused():
    cfg = config("optimizer._partial_=false")
    with pytest.raises(ValueError, match="function of the parameters: add _partial_: true"):
        check_training(cfg)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("+trainer.nonsense=3", "trainer.nonsense is no argument of lightning.Trainer"),
        ("+optimizer.momentum=1", "optimizer.momentum is no argument of torch.optim.AdamW"),
        ("+scheduler.warmpu=1", "scheduler.warmpu is no argument of .*, which takes"),
    ],
)
def test_settings_that_nobody_takes_are_refused_before_the_data_are_read(typed, words):
    with pytest.raises(ValueError, match=words):
        check_training(config(typed))


def test_checkpoints_hold_no_lists_of_the_configuration():
    """Older releases of torch keep them as they are, and do not load them."""
    adam = {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [0.8, 0.9]}
    falls = {"_target_": "torch.optim.lr_scheduler.MultiStepLR", "_partial_": True}
    falls["milestones"] = [1, 2]
    cfg = {"optimizer": adam, "scheduler": falls, "monitor": None, "mode": None}
    made = optimization(OmegaConf.create(cfg))
    assert type(made["optimizer"].keywords["betas"]) is list
    assert type(made["scheduler"].make.keywords["milestones"]) is list

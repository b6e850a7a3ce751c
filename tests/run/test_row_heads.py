"""Heads for labels of whole rows in a run: who gets one, what is learnt, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_module
from tiny import bert, loader, text_batches, trainer

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill import DistillationModule, Objective
from lightning_distill.metrics.traits import needs_teacher
from lightning_distill.models.row_head import fresh_row_head, give_row_head, row_head_of
from lightning_distill.run.follow_task import follow_task, packaged
from lightning_distill.run.metrics import build_metrics, without_agreement
from lightning_distill.run.objective import build_label_objective, build_objective, label_terms
from lightning_distill.run.row_heads import check_row_head, check_row_labels, give_rows_a_head

NAMES = ["go", "stay"]


def config(*typed: str, rows: int | None = 2):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", overrides=["output_dir=out", "optimizer.lr=0.001", *typed])
    cfg.task, cfg.num_labels, cfg.num_row_labels = "token_classification", 3, rows
    return cfg


def data(names=NAMES, column: str | None = "intent"):
    tags = ["O", "B-a", "I-a"]
    return SimpleNamespace(row_label=column, row_label_names=names, label_names=tags)


def followed(*typed: str, of=None):
    cfg = config(*typed)
    of = of or data()
    follow_task(cfg, "criteria", of)
    return cfg, of


def test_a_run_on_both_labels_learns_and_measures_both_where_nobody_chose():
    cfg, of = followed()
    expected = {"hard_label": 0.1, "soft_target": 0.9, "row_label": 0.1, "row_soft_target": 0.9}
    assert build_objective(cfg).weights() == pytest.approx(expected)
    assert build_label_objective(cfg, bert(1, 8)).weights() == {"hard_label": 1.0, "row_label": 1.0}
    # Each label term weighs what the teacher's term of the same labels leaves.
    cfg.criteria.row_soft_target.weight = 0.7
    assert build_objective(cfg).weights() == pytest.approx(
        expected | {"row_label": 0.3, "row_soft_target": 0.7}
    )
    metrics = build_metrics(cfg, of)
    assert list(metrics) == ["entity_f1", "agreement", "row_accuracy", "row_agreement"]
    assert [n for n, m in metrics.items() if needs_teacher(m)] == ["agreement", "row_agreement"]
    assert cfg.monitor == "val/entity_f1" and metrics["row_accuracy"].metric.num_classes == 2
    assert list(followed(of=data(column=None))[0].criteria) == ["hard_label", "soft_target"]


def test_jobs_without_a_teacher_compare_nothing_of_whole_rows_either():
    cfg = config()
    without_agreement(cfg)
    assert list(build_metrics(cfg, data())) == ["entity_f1", "row_accuracy"]
    chosen = config()
    chosen.metrics = {"row_agreement": packaged("metrics", "row_agreement")}
    without_agreement(chosen)
    assert chosen.metrics.row_agreement is None


@pytest.mark.parametrize(
    ("chosen", "alone"),
    [
        ("soft_target,row_soft_target", {"hard_label": 1.0, "row_label": 1.0}),
        ("hard_label,soft_target,row_soft_target", {"hard_label": 1.0, "row_label": 1.0}),
        ("hard_label,soft_target", {"hard_label": 1.0}),
        ("row_label,row_soft_target", {"row_label": 1.0}),
    ],
)
def test_a_baseline_learns_the_labels_of_whatever_the_teacher_teaches(chosen, alone):
    cfg = config(f"criteria=[{chosen}]")
    assert build_label_objective(cfg, bert(1, 8)).weights() == alone
    assert set(label_terms(config(rows=None), bert(1, 8))) == {"hard_label"}


def test_who_will_be_trained_gets_a_head_for_the_labels_of_the_data():
    cfg, model = config("seed=4"), bert(1, 8)
    give_rows_a_head(cfg, data(column=None), model)
    assert row_head_of(model) is None
    give_rows_a_head(cfg, data(), model)
    head = row_head_of(model)
    assert torch.equal(head.linear.weight, fresh_row_head(model, NAMES, 4).linear.weight)
    give_rows_a_head(cfg, data(), model)
    assert row_head_of(model) is head
    give_rows_a_head(cfg, data(NAMES[::-1]), model)
    assert row_head_of(model).names == NAMES[::-1]
    # A head that nothing trains would not fit what it reads; a teacher may train it without labels.
    give_rows_a_head(config("criteria=[row_soft_target]"), data(column=None), model)
    assert row_head_of(model) is not None
    give_rows_a_head(config("criteria=[soft_target]"), data(column=None), model)
    assert row_head_of(model) is None
    with pytest.raises(ValueError, match=r"labels are unknown: name them.*row_label_names="):
        give_rows_a_head(cfg, data(None), model)


def test_beside_adapters_it_is_trained_whole_and_merged_away_with_them():
    pytest.importorskip("peft")
    from lightning_distill.run.save import merged
    from lightning_distill.students import lora

    model = give_row_head(bert(1, 8), fresh_row_head(bert(1, 8), NAMES, 0))
    student = lora(model, target_modules=["query"])
    assert not row_head_of(student).linear.weight.requires_grad
    give_rows_a_head(config(), data(), student)
    assert row_head_of(student).linear.weight.requires_grad
    assert row_head_of(merged(student)).names == NAMES


def taught(names=NAMES):
    model = bert(2, 8, seed=2)
    return model if names is None else give_row_head(model, fresh_row_head(model, names, 0))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["stay", "go"], r"another order in the teacher \(stay, go\).*row_label_names=\[stay,go\]"),
        (["go", "look"], r"teacher \(go, look\) are not those of the data \(go, stay\)"),
    ],
)
def test_a_teacher_of_other_labels_is_refused(names, words):
    with pytest.raises(ValueError, match=words):
        check_row_labels(config(), data(), taught(names))
    check_row_labels(config(), data(column=None), taught(names))
    check_row_labels(config(), data(), taught())


def test_data_without_any_label_take_those_of_their_teacher():
    cfg, unlabelled = config(rows=None), data(None)
    check_row_labels(cfg, unlabelled, taught())
    assert unlabelled.row_label_names == NAMES and cfg.num_row_labels == 2


def test_what_is_measured_must_have_the_head():
    check_row_head(data(column=None), bert(1, 8))
    check_row_head(data(), taught())
    with pytest.raises(ValueError, match="the model has no head for them.*data.row_label=null"):
        check_row_head(data(), bert(1, 8))
    with pytest.raises(ValueError, match="of the model"):
        check_row_head(data(["a", "b"]), taught())


def test_a_teacher_without_the_head_is_refused_before_the_first_step(tmp_path):
    terms = build_objective(config("criteria=[row_soft_target]")).terms
    module = DistillationModule(taught(), taught(None), Objective(dict(terms.items())))
    with pytest.raises(ValueError, match="the teacher has none. Train one.*job=finetune"):
        trainer(tmp_path).fit(module, loader(text_batches()))

"""The label loss weighs what the papers of its companions give it."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from torch import nn

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.run.objective import build_label_objective, build_objective

CONF = Path(__file__).parents[2] / "conf"


def config(*overrides: str):
    fixed = ["output_dir=out", "task=classification", "num_labels=3", "num_rows=10"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("main", overrides=[*fixed, *overrides])


def weights(*overrides: str) -> dict[str, float]:
    return build_objective(config(*overrides)).weights()


CASES = {
    "hard_label": 1.0,
    "hard_label,soft_target": 0.1,
    "hard_label,logit_mse": 0.1,
    "hard_label,soft_cross_entropy": 0.1,
    "hard_label,sample_weighted": 0.1,
    "hard_label,soft_target,logit_mse": 0.1,
    "hard_label,soft_target,hint": 0.1,
    "hard_label,logit_standardization": 0.1,
    "hard_label,review_kd": 1.0,
    "hard_label,hint": 1.0,
    "hard_label,rkd": 1.0,
    "hard_label,dkd": 1.0,
    "hard_label,similarity_preserving": 1.0,
}


@pytest.mark.parametrize(("criteria", "expected"), CASES.items())
def test_the_weight_follows_the_companions(criteria, expected):
    assert weights(f"criteria=[{criteria}]")["hard_label"] == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("criteria.hard_label.weight=0.3", 0.3),
        ("criteria.soft_target.weight=0.7", 0.3),
        ("criteria.soft_target.weight=1", 1.0),
        ("criteria.soft_target.weight=0", 1.0),
        (
            "criteria.soft_target.weight={_target_: lightning_distill.schedules.Linear,"
            " start: 1, stop: 0}",
            0.1,
        ),
    ],
)
def test_what_is_typed_wins_and_a_share_leaves_the_rest(typed, expected):
    assert weights("criteria=[hard_label,soft_target]", typed)["hard_label"] == expected


def test_a_feature_term_of_half_a_weight_takes_nothing_from_the_labels():
    found = weights("criteria=[hard_label,hint]", "criteria.hint.weight=0.5")
    assert found == {"hard_label": 1.0, "hint": 0.5}


@pytest.mark.parametrize(
    ("typed", "expected"), [((), 1.0), (("criteria.hard_label.weight=0.2",), 0.2)]
)
def test_labels_alone_are_the_loss_unless_a_weight_is_typed(typed, expected):
    cfg = config("criteria=[hard_label,soft_target,hint]", *typed)
    assert build_label_objective(cfg, nn.Linear(2, 3)).weights() == {"hard_label": expected}
    # What the distillation weighs is another question.
    assert build_objective(cfg).weights()["hard_label"] == (0.2 if typed else 0.1)


def test_terms_of_the_teacher_alone_leave_plain_labels():
    objective = build_label_objective(config("criteria=[soft_target]"), nn.Linear(2, 3))
    assert objective.weights() == {"hard_label": 1.0}

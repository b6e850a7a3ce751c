"""One cache of the teacher's answers serves all trials of a search, or they ask it themselves."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.data.data import CACHING
from lightning_distill.run.shared_answers import why_none_serves_all
from lightning_distill.search_plan import read_plan

DATA = SimpleNamespace(**{name: lambda: None for name in CACHING})
# With these the words and the run are whole; nothing of it is loaded.
WORDS = ["data=text_files", "data.train=t.csv", "output_dir=DIR", "task=classification"]
WORDS += ["num_labels=2", "monitor=val/accuracy", "mode=max"]
PRETRAINED = ["teacher=pretrained", "teacher.path=T", "student=from_teacher"]
HINT = ["criteria=[hard_label,hint]"]
MANY = [
    *HINT,
    "criteria.hint.inputs.student='student.hidden_states[1:]'",
    "criteria.hint.inputs.teacher='teacher.hidden_states[1:]'",
]
FIRST = ["student.hidden_states[1:]", "student.hidden_states[:3]"]
SECOND = ["teacher.hidden_states[1:]", "teacher.hidden_states[:3]"]


def why(space, *words):
    words = [
        *WORDS,
        *(PRETRAINED if not any(w.startswith("teacher=") for w in words) else []),
        *words,
    ]
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", words)
    before = OmegaConf.to_yaml(cfg)
    found = why_none_serves_all(cfg, read_plan(cfg, space), DATA)
    assert OmegaConf.to_yaml(cfg) == before
    return found


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"student.layers": [1, 2], "optimizer.lr": {"low": 1e-4, "high": 1e-2}}, []),
        ({"student.layers": [1, 2]}, HINT),
        ({"data.batch_size": [8, 16], "data.num_workers": [0, 2]}, []),
        ({"criteria.soft_target.criterion.temperature": [1.0, 4.0]}, []),
        # What is kept for all may be more than what one reads.
        ({"criteria.soft_target.weight": [0.0, 0.5]}, []),
        ({"criteria.hint.criterion.kind": ["mse", "cosine"]}, MANY),
        ({"criteria.hint.mapping": ["uniform"]}, MANY),
    ],
)
def test_one_cache_serves_all(space, words):
    assert why(space, *words) is None


UNQUANTISED = ["teacher=unquantised", "student=pretrained", "student.path=A"]


@pytest.mark.parametrize(
    ("space", "words", "said"),
    [
        ({"teacher.dtype": [None, "bfloat16"]}, [], "teacher.dtype may change its answers"),
        ({"data.max_length": [8, 16]}, [], "data.max_length may change its answers"),
        ({"trainer.precision": ["32-true", "bf16-mixed"]}, [], "trainer.precision may change its"),
        # One value that all have, and that is not the run's.
        ({"trainer.precision": ["bf16-mixed"]}, [], "trainer.precision may change its answers"),
        # By what it refers to.
        ({"student.path": ["A", "B"]}, UNQUANTISED, "student.path may change its answers"),
        ({"seed": [0, 1]}, ["teacher=trained"], "seed may change its answers"),
        ({"student.layers": [1, 2]}, MANY, "each student is compared with other layers of it (tea"),
        (
            {"criteria.hint.mapping": ["uniform", "last"]},
            MANY,
            "criteria.hint.mapping may change what is read of it",
        ),
        (
            {"criteria.hint.pair": [0, 1]},
            [*MANY, "+criteria.hint.pair=0"],
            "criteria.hint.pair may change what is read of it",
        ),
        ({"criteria.hint.inputs.teacher": SECOND}, MANY, "inputs.teacher may change what is read"),
        (
            {"criteria.hint.inputs.student": FIRST},
            MANY,
            "criteria.hint.inputs.student may change what is read of it",
        ),
        # A term that counts in some trials alone, and not in the run as it was typed.
        (
            {"criteria.hint.weight": [0.0, 1.0]},
            [*HINT, "criteria.hint.weight=0"],
            "criteria.hint.weight may change what is read of it",
        ),
        # By themselves these are refused, together they are not.
        (
            {
                "criteria.hint.inputs.student": ["student.hidden_states[1:]"],
                "criteria.hint.inputs.teacher": ["teacher.hidden_states[1:]"],
                "criteria.hint.mapping": ["uniform", "last"],
            },
            HINT,
            "may change what is read of it",
        ),
        (
            {"criteria.fused_linear_top_k.criterion.temperature": [1.0, 2.0]},
            ["criteria=[fused_linear_top_k]"],
            "it would keep what one criterion reads at one temperature",
        ),
        ({"module.student_fraction": [0.5, 1.0]}, ["module=on_policy"], "OnPolicyDistillationMod"),
        ({"optimizer.lr": [1e-3, 1e-2]}, ["module=theseus"], "TheseusModule asks it itself"),
    ],
)  # fmt: skip
def test_each_trial_asks_the_teacher_itself(space, words, said):
    assert said in why(space, *words)


def test_data_whose_rows_have_no_numbers_cannot_be_cached(monkeypatch):
    monkeypatch.delattr(DATA, "row_lengths")
    assert "its answers cannot be kept: job=search walks over the rows" in why(
        {"student.layers": [1]}
    )

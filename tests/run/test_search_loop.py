"""What a search says of trials that did not work, and the command that it ends with."""

import shlex

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.report import SearchResult, Tried
from lightning_distill.run.search_loop import _check_some_worked
from lightning_distill.run.search_trial import (
    command_of,
    NOT_OF_A_TRIAL,
    trial_config,
)
from lightning_distill.run.typed import typed_command, typed_words
from lightning_distill.search_parameters import Choices
from lightning_distill.search_plan import Plan

VALUES = {"student.layers": 2, "student.keep": [0, 1]}


def plan(epochs, steps):
    return Plan((Choices("student.layers", (1, 2)),), ("metric",), 2, epochs, steps, True)


@pytest.fixture
def typed():
    words = ["job=search", "++job.space.student.layers=[1,2]", "output_dir=DIR", "resume=null"]
    words += ["criteria=[soft_target]", "student=from_teacher", "student.layers=3", "~balance"]
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        HydraConfig.instance().set_config(compose("main", words, return_hydra_config=True))
        yield
    HydraConfig.instance().cfg = None


@pytest.mark.usefixtures("typed")
def test_the_command_has_what_was_typed_but_for_the_search_and_with_what_was_tried():
    found = shlex.split(command_of(typed_words(NOT_OF_A_TRIAL), VALUES))
    assert found == [
        "lightning-distill",
        "criteria=[soft_target]",
        "student=from_teacher",
        "~balance",
        "student.layers=2",
        "student.keep=[0,1]",
    ]


@pytest.mark.usefixtures("typed")
def test_the_command_as_it_was_typed():
    found = shlex.split(typed_command())
    assert found[:3] == ["lightning-distill", "job=search", "++job.space.student.layers=[1,2]"]
    assert len(found) == 9 and found[-1] == "~balance"


def test_without_a_command_nothing_was_typed():
    assert typed_words() == [] and typed_command() == ""
    assert command_of([], {"optimizer.lr": 0.5}) == "lightning-distill optimizer.lr=0.5"


@pytest.mark.parametrize(("epochs", "steps"), [(3, None), (None, 40)])
def test_a_trial_is_a_distillation_with_its_values_and_its_budget(epochs, steps):
    before = {
        "job": {"_target_": "lightning_distill.jobs.search", "trials": 2},
        "student": {"layers": 9, "keep": "uniform"},
        "teacher": {"path": "DIR"},
        "trainer": {"max_epochs": 12, "max_steps": -1},
        **{"resume": "run", "baseline": True, "profile": True},
    }
    cfg = OmegaConf.create(before)
    found = trial_config(cfg, plan(epochs, steps), VALUES, {"folder": "answers"})
    assert OmegaConf.to_container(cfg) == before
    assert found.job == {"_target_": "lightning_distill.jobs.distill"}
    assert found.student == {"layers": 2, "keep": [0, 1]}
    assert found.teacher == {"folder": "answers"}
    assert (found.resume, found.baseline, found.profile) == (None, False, False)
    if steps is None:
        assert found.trainer == {"max_epochs": 3, "max_steps": -1}
    else:
        assert (found.trainer.max_epochs, found.trainer.max_steps) == (-1, 40)


def test_a_search_without_a_result_says_why():
    def refused(*trials):
        with pytest.raises(ValueError) as info:
            _check_some_worked(SearchResult("a", True, ("metric",), trials))
        return str(info.value)

    one = Tried(0, "failed", {}, reason="too wide.")
    other = Tried(1, "failed", {}, reason="too wide.")
    early = Tried(2, "pruned", {}, reason="Hyperband")
    assert refused(one, other).startswith("All 2 trials have failed: too wide. Change job.space")
    said = refused(one, other, early)
    assert said.startswith("2 of 3 trials have failed: too wide. The others ended early, and")
    _check_some_worked(SearchResult("a", True, ("metric",), [one, Tried(3, "complete", {})]))

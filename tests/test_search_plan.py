"""What a search may be asked for, and the words by which it is refused."""

import importlib.util

import numpy as np
import pytest
from omegaconf import OmegaConf

from lightning_distill.search_parameters import Choices, Range
from lightning_distill.search_plan import read_plan

CFG = {
    "student": {
        "_target_": "lightning_distill.students.from_teacher",
        "layers": 2,
        "keep": "uniform",
    },
    "optimizer": {"lr": None, "betas": [0.9, 0.999]},
    "criteria": {"soft_target": {"weight": 1.0, "criterion": {"temperature": 2.0}}},
    "trainer": {"max_epochs": None},
    "monitor": None,
    "teacher": {"_target_": "lightning_distill.teachers.pretrained", "path": "DIR"},
}
LAYERS = {"student": {"layers": [1, 2]}}


@pytest.fixture(autouse=True)
def there(monkeypatch):
    """Whether Optuna is installed does not matter here."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def plan(space=LAYERS, more=None, **options):
    return read_plan(OmegaConf.merge(CFG, more or {}), space, **options)


def refused(*arguments, **options) -> str:
    with pytest.raises(ValueError) as info:
        plan(*arguments, **options)
    return str(info.value)


def test_options_are_named_by_nested_or_dotted_keys():
    nested = {"student": {"layers": [1, 2]}, "criteria": {"soft_target": {"weight": [0.5, 1]}}}
    dotted = {"student.layers": [1, 2], "criteria.soft_target.weight": [0.5, 1]}
    expected = (Choices("student.layers", (1, 2)), Choices("criteria.soft_target.weight", (0.5, 1)))
    assert plan(nested).parameters == plan(dotted).parameters == expected


def test_a_range_is_told_from_an_option_by_its_ends():
    lr = {"optimizer": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}}
    assert plan(lr).parameters == (Range("optimizer.lr", 1e-4, 1e-2, None, True),)
    # Whole numbers have neighbours.
    assert plan({"student.layers": {"low": 1, "high": 4}}).count == 4


@pytest.mark.parametrize(
    ("low", "high", "step"), [(1, 4, 1), (2, 11, 3), (0.1, 0.5, 0.1), (0.0, 1.0, 0.3), (5, 5, 1)]
)
def test_a_range_with_steps_counts_its_values(low, high, step):
    found = Range("key", low, high, step)
    expected = np.arange(low, high + step * 1e-9, step)
    assert found.count == len(expected)
    assert found.codes == pytest.approx(expected.tolist())
    assert {type(code) for code in found.codes} == {type(low)}


def test_a_value_between_steps_is_as_it_would_be_typed():
    found = Range("key", 0.1, 0.9, 0.2)
    assert [found.value(0.1 + i * 0.2) for i in range(5)] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert found.codes == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert Range("key", 1e-4, 1e-2, log=True).value(0.0012345) == 0.0012345


def test_how_many_trials_there_can_be():
    both = {"student.layers": [1, 2, 3], "student.keep": ["first", "last"]}
    assert plan(both).count == 6
    assert plan({**both, "optimizer.lr": {"low": 0.1, "high": 1.0}}).count is None


def test_values_that_are_lists_are_kept_as_text_and_read_again():
    choices = Choices("optimizer.betas", ([0.9, 0.99], [0.8, 0.9], None))
    assert choices.codes == ["[0.9, 0.99]", "[0.8, 0.9]", None]
    assert [choices.value(code) for code in choices.codes] == list(choices.values)


def test_what_is_searched_where_nobody_says_it():
    assert [p.key for p in plan({}).parameters] == ["student.layers"]
    pruned = {"student": {"_target_": "x.pruned_student", "parameters": None}}
    assert [p.key for p in plan({}, pruned).parameters] == ["student.parameters"]
    said = refused({}, {"student": {"_target_": "x.pretrained"}})
    assert "job.space is empty, and nothing is known to search of this student" in said


def test_steps_take_the_place_of_epochs():
    assert (plan(steps=7).epochs, plan(steps=7).validations) == (None, 7)
    assert plan(steps=500).validations == 9
    assert (plan(epochs=4).steps, plan(epochs=4).validations) == (None, 4)


def test_one_objective_may_be_typed_without_brackets():
    assert plan(objectives="metric").objectives == ("metric",)


SPACES = {
    "unknown": (
        {"student.layer": [1]},
        "job.space has student.layer, and there is no such option. Nearest: student.layers",
    ),
    "a group": ({"student": [1, 2]}, "job.space.student names a group"),
    "empty": (
        {"student.layers": []},
        "job.space.student.layers is an empty list: name its choices",
    ),
    "a value": ({"student.layers": 2}, "typed without job.space: student.layers=VALUE"),
    "text": ({"student.keep": "first"}, "must be a list of choices, as [1,2,3], or a range"),
    "twice": ({"student.layers": [1, 2, 1]}, "job.space.student.layers has 1 twice, got [1, 2, 1]"),
    "budget": ({"trainer.max_epochs": [1, 2]}, "job.epochs or job.steps is the budget of a trial"),
    "metric": ({"monitor": ["a", "b"]}, "cannot be searched: all trials are measured alike"),
    "code": ({"allow_targets": [["os"]]}, "cannot be searched: it says whose code is run"),
    "own": ({"student._target_": ["a"]}, "there is no such option"),
    "misspelt": ({"optimizer.lr": {"low": 1, "hihg": 2}}, "got 'hihg'. Did you mean high?"),
    "no end": ({"optimizer.lr": {"low": 1}}, "job.space.optimizer.lr.high must be a number"),
    "turned": ({"optimizer.lr": {"low": 2, "high": 1}}, "low below high, got low=2 and high=1"),
    "log of 0": ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "a positive low, got 0"),
    "both": (
        {"optimizer.lr": {"low": 1, "high": 9, "log": True, "step": 2}},
        "step and log, which do not go together",
    ),
    "no flag": ({"optimizer.lr": {"low": 1, "high": 9, "log": 1}}, "log must be true or false"),
    "no step": ({"optimizer.lr": {"low": 1, "high": 9, "step": 0}}, "step must be positive, got 0"),
    "no space": ([1], "job.space must be options with their choices"),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", SPACES)
def test_a_space_that_cannot_be_searched_is_refused(name):
    space, words = SPACES[name]
    assert words in refused(space)


OPTIONS = {
    "trials": (dict(trials=0), "job.trials must be at least 1, got 0."),
    "steps": (dict(steps=0), "job.steps must be at least 1, got 0."),
    "neither": (dict(epochs=None), "job.epochs must be a whole number, got None."),
    "prune": (dict(prune="no"), "job.prune must be true or false, got 'no'."),
    "objective": (dict(objectives=["metric", "latencies"]), "Did you mean latency?"),
    "metric": (dict(objectives=["size"]), "what is fast or small is known without training"),
    "none": (dict(objectives=[]), "must have metric among them"),
    "stages": (dict(more={"stages": [{}]}), "leave out `stages`"),
    "teacher": (
        dict(more={"teacher": {"_target_": "lightning_distill.run.caching_teacher"}}),
        "job=search keeps the teacher's answers by itself",
    ),
}


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_are_refused(name):
    options, words = OPTIONS[name]
    assert words in refused(**options)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'lightning-distill[search]'" in refused()

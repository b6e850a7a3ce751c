"""A study on disk: each trial is tried once, in an order that a kill does not change."""

import itertools
import random

import pytest

optuna = pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")

from optuna.trial import TrialState  # noqa: E402

from lightning_distill.search import open_study, StudyOnDisk  # noqa: E402
from lightning_distill.search_parameters import Choices, Range  # noqa: E402
from lightning_distill.search_plan import Plan  # noqa: E402

LAYERS = Choices("student.layers", (1, 2, 3))
KEEP = Choices("student.keep", ("first", [0, 2], None))
RATE = Range("optimizer.lr", 1e-4, 1e-1, log=True)


def planned(*parameters, trials=4, objectives=("metric", "size")):
    return Plan(tuple(parameters), objectives, trials, 3, None, True)


def begun(plan, seed=0, mode="max"):
    """In memory, which is faster than a file; to open it again is to take it up anew."""
    directions = ["minimize" if n != "metric" else f"{mode}imize" for n in plan.objectives]
    return taken_up(optuna.create_study(directions=directions), plan, seed)


def taken_up(study, plan, seed=0):
    return StudyOnDisk(study, plan, seed)


def opened(folder, plan, seed=0, mode="max", **about):
    return open_study(folder / "search.db", plan, mode, seed, about)


def do(study, most=None):
    """Go through the trials; the metric is made up of what they try."""
    found = []
    for trial in itertools.islice(study.left(), most):
        values = study.draw(trial)
        layers = values.get("student.layers", 1)
        metric = 0.2 * layers + random.Random(str(sorted(values.items(), key=str))).random()
        study.tell(
            trial,
            {"metric": metric, "size": layers, "latency": metric * layers, "size_mb": 4 * layers},
        )
        found.append(values)
    return found


def test_where_there_are_few_each_is_tried_once():
    found = do(begun(planned(LAYERS, KEEP, trials=9)))
    expected = itertools.product(LAYERS.values, KEEP.values)
    assert sorted(map(str, (tuple(v.values()) for v in found))) == sorted(map(str, expected))
    # Another time in the same order, with another seed in another one.
    assert do(begun(planned(LAYERS, KEEP, trials=9))) == found
    other = do(begun(planned(LAYERS, KEEP, trials=9), seed=1))
    assert found != other and sorted(map(str, found)) == sorted(map(str, other))


def test_nothing_is_tried_twice_where_draws_repeat():
    study = begun(planned(LAYERS, KEEP, trials=8))
    found = do(study)
    assert len({str(values) for values in found}) == len(found) == 8 == len(study.trials)
    assert len(study.study.trials) > 8


@pytest.mark.parametrize("parameters", [(LAYERS, RATE), (LAYERS, KEEP)])
@pytest.mark.parametrize("objectives", [("metric",), ("metric", "size")])
def test_a_search_that_is_taken_up_for_each_trial_tries_the_same(parameters, objectives):
    plan = planned(*parameters, trials=14 if RATE in parameters else 6, objectives=objectives)
    whole, pieces = do(begun(plan)), []
    study = begun(plan).study
    for _ in range(plan.trials):
        pieces += do(taken_up(study, plan), most=1)
        # Cut off in the next one, which it draws and does not end.
        next(taken_up(study, plan).left(), None)
    assert pieces == whole
    assert len(whole) == plan.trials


def test_the_one_that_was_cut_off_comes_first_with_what_it_tried(tmp_path):
    plan = planned(LAYERS, RATE)
    study = opened(tmp_path, plan)
    do(study, most=1)
    trial = next(study.left())
    values = study.draw(trial)
    again = opened(tmp_path, plan)
    first = next(again.left())
    assert (first.number, again.draw(first)) == (trial.number, values) == (1, values)
    assert [t.number for t in again.study.trials] == [0, 1]


def test_more_trials_of_few_are_the_rest():
    study = begun(planned(LAYERS, KEEP, trials=3))
    before = do(study)
    after = do(taken_up(study.study, planned(LAYERS, KEEP, trials=9)))
    assert (len(before), len(after)) == (3, 6)
    assert len({str(values) for values in before + after}) == 9


@pytest.mark.parametrize(
    "objectives", [("metric",), ("metric", "size"), ("metric", "latency", "size", "size_mb")]
)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_are_those_that_no_other_beats(objectives, mode):
    plan = planned(LAYERS, RATE, trials=25, objectives=objectives)
    study = begun(plan, mode=mode)
    do(study)
    signs = [(-1 if mode == "max" else 1) if name == "metric" else 1 for name in objectives]
    points = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in study.trials}

    def beats(one, other):
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    expected = {n for n, p in points.items() if not any(beats(o, p) for o in points.values())}
    assert study.best == expected
    assert 0 < len(expected) < 25


def test_failed_and_pruned_trials_are_counted_and_are_not_the_best():
    study = begun(planned(LAYERS, trials=3))
    told = [lambda t: study.tell(t, {"metric": 0.1, "size": 9}),
            lambda t: study.tell_without(t, TrialState.FAIL, "too large"),
            lambda t: study.tell_without(t, TrialState.PRUNED, "too bad")]  # fmt: skip
    for trial, tell in zip(study.left(), told, strict=True):
        study.draw(trial)
        tell(trial)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "PRUNED"]
    assert [t.user_attrs.get("reason") for t in study.trials] == [None, "too large", "too bad"]
    assert study.best == {0} and list(study.left()) == []


def test_one_that_was_killed_while_it_wrote_what_there_is_to_try_has_each_once(tmp_path):
    opened(tmp_path, planned(LAYERS, trials=3))
    again = opened(tmp_path, planned(LAYERS, trials=3))
    assert len(again.study.trials) == 3
    assert sorted(v["student.layers"] for v in do(again)) == [1, 2, 3]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_file_knows_what_is_better(tmp_path, mode):
    plan = planned(LAYERS, trials=1, objectives=("latency", "metric", "size"))
    directions = [d.name for d in opened(tmp_path, plan, mode=mode).study.directions]
    assert directions == ["MINIMIZE", f"{mode}imize".upper(), "MINIMIZE"]


def test_a_file_of_another_search_is_refused(tmp_path):
    opened(tmp_path, planned(LAYERS), data="rows.csv")
    # More trials are the same search.
    opened(tmp_path, planned(LAYERS, trials=7), data="rows.csv")
    with pytest.raises(ValueError, match=r"search.db holds another search: data differ"):
        opened(tmp_path, planned(LAYERS), data="other.csv")
    with pytest.raises(ValueError, match=r"job.space differ.* resume="):
        opened(tmp_path, planned(LAYERS, KEEP), data="rows.csv")

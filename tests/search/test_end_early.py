"""Which trials end early: as Hyperband says, or because another one is better and no larger."""

import random
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

optuna = pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")

from optuna.trial import TrialState  # noqa: E402

from lightning_distill.search import EndEarly, open_study, StudyOnDisk  # noqa: E402
from lightning_distill.search.end_early import is_rung  # noqa: E402
from lightning_distill.search_parameters import Range  # noqa: E402
from lightning_distill.search_plan import Plan  # noqa: E402
from lightning_distill.sparsity import MagnitudeSparsity  # noqa: E402

# Of a trainer it reads some attributes.
pytestmark = pytest.mark.usefixtures("unchecked_types")
RATE = Range("optimizer.lr", 1e-4, 1e-1, log=True)


def curve(rate: float, count: int) -> list[float]:
    """A metric that is better at once for some rates, and noisy."""
    noise = random.Random(str(rate))
    return [rate * 10 + 0.02 * i + 0.2 * noise.random() for i in range(count)]


def trainer(value, sanity_checking=False, step=1, monitor="val/a", sparsity=()):
    """One whose best checkpoint goes by a metric; by `None` there is no best one."""
    best = [] if monitor is None else [ModelCheckpoint(monitor=monitor, mode="max")]
    return SimpleNamespace(
        callback_metrics={"val/a": value}, sanity_checking=sanity_checking, global_step=step,
        checkpoint_callbacks=best, callbacks=[*sparsity, *best],
    )  # fmt: skip


def begun(objectives, epochs=9, prune=True, trials=30, mode="max"):
    plan = Plan((RATE,), objectives, trials, epochs, None, prune)
    directions = ["minimize" if n != "metric" else f"{mode}imize" for n in objectives]
    study = optuna.create_study(
        study_name="search",
        directions=directions,
        pruner=optuna.pruners.HyperbandPruner(1, epochs, 3),
    )
    return StudyOnDisk(study, plan, 0)


def go_through(study, values=curve, sizes=lambda trial: {}, mode="max"):
    """How often each trial is measured, as the callback ends it."""
    counts = []
    for trial in study.left():
        rate = study.draw(trial)["optimizer.lr"]
        for name, size in sizes(trial).items():
            trial.set_user_attr(name, size)
        callback = EndEarly(study, trial, "val/a", mode)
        try:
            for value in values(rate, study.plan.validations):
                callback.on_validation_end(trainer(value), None)
            study.tell(trial, {"metric": callback.values[-1], **sizes(trial)})
        except optuna.TrialPruned as end:
            study.tell_without(trial, TrialState.PRUNED, str(end))
        counts.append(len(callback.values))
    return counts


def test_with_one_objective_it_is_what_optuna_does_by_itself():
    found = go_through(begun(("metric",)))
    own = begun(("metric",)).study
    expected = []

    def objective(trial):
        best = 0.0
        values = curve(trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True), 9)
        for i, value in enumerate(values, 1):
            best = max(best, value)
            trial.report(best, i)
            if i < 9 and trial.should_prune():
                expected.append(i)
                raise optuna.TrialPruned
        expected.append(9)
        return best

    for number in range(30):
        seed = random.Random(f"0 {number}").getrandbits(32)
        own.sampler = optuna.samplers.TPESampler(seed=seed)
        own.optimize(objective, n_trials=1)
    assert found == expected
    assert {9} < set(found)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_with_several_it_ends_where_another_was_better_and_no_larger(mode):
    study = begun(("metric", "latency", "size"), mode=mode)

    def sizes(trial):
        draw = random.Random(trial.number)
        return {"latency": draw.randint(1, 3), "size": draw.randint(1, 3)}

    found = go_through(study, sizes=sizes, mode=mode)
    choose = max if mode == "max" else min
    # By hand: the curves of those before, as far as they went.
    before, expected = [], []
    for trial in study.study.trials:
        values, own = curve(trial.params["optimizer.lr"], 9), sizes(trial)
        bests = [choose(values[:i]) for i in range(1, 10)]
        count = 9
        for rung in (1, 3):
            beaten = [
                1
                for other, other_sizes in before
                if len(other) >= rung
                and other[rung - 1] != bests[rung - 1]
                and choose(other[rung - 1], bests[rung - 1]) == other[rung - 1]
                and all(other_sizes[n] <= own[n] for n in own)
            ]
            if beaten:
                count = rung
                break
        expected.append(count)
        before.append((bests[:count], own))
    assert found == expected
    assert {1, 3, 9} == set(found)
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    assert all(
        "was better, and is no larger and no slower" in t.user_attrs["reason"] for t in pruned
    )


@pytest.mark.parametrize("objectives", [("metric",), ("metric", "size")])
def test_nothing_ends_early_where_it_is_switched_off_or_at_its_end(objectives):
    def sizes(trial):
        return {"size": 1}

    assert set(go_through(begun(objectives, prune=False), sizes=sizes)) == {9}
    assert set(go_through(begun(objectives, epochs=1), sizes=sizes)) == {1}


def test_what_counts_is_the_best_so_far():
    study = begun(("metric", "size"), trials=1)
    trial = next(study.left())
    study.draw(trial)
    trial.set_user_attr("size", 1)
    callback = EndEarly(study, trial, "val/a", "min")
    callback.on_validation_end(trainer(9.0, sanity_checking=True), None)
    for value in (3.0, 2.0, 4.0):
        callback.on_validation_end(trainer(value), None)
    assert callback.values == trial.user_attrs["validations"] == [3.0, 2.0, 2.0]
    with pytest.raises(ValueError, match="val/a is nan"):
        callback.on_validation_end(trainer(float("nan")), None)


def watched(objectives=("metric", "size"), **options):
    study = begun(objectives, **options)
    trial = next(study.left())
    study.draw(trial)
    trial.set_user_attr("size", 1)
    return EndEarly(study, trial, "val/a", "max"), trial


@pytest.mark.parametrize("monitor", [None, "val/loss"])
def test_what_counts_is_the_last_where_nothing_chooses_the_weights_by_it(monitor):
    callback, _ = watched()
    for step, value in enumerate((3.0, 5.0, 4.0), 1):
        callback.on_validation_end(trainer(value, step=step, monitor=monitor), None)
    assert callback.values == [3.0, 5.0, 4.0]
    assert [callback.of_weights(step) for step in (1, 2, 3, 9)] == [3.0, 5.0, 4.0, 4.0]


@pytest.mark.parametrize("objectives", [("metric",), ("metric", "size")])
def test_a_student_that_is_yet_to_become_sparse_is_not_compared(objectives):
    sparsity = MagnitudeSparsity()

    def go(study, trial, values, sparse_after):
        study.draw(trial)
        trial.set_user_attr("size", 1)
        callback = EndEarly(study, trial, "val/a", "max")
        for count, value in enumerate(values, 1):
            sparsity._done = sparsity.updates if count > sparse_after else 0
            callback.on_validation_end(trainer(value, step=count, sparsity=[sparsity]), None)
        return callback

    study = begun(objectives, trials=9)
    left = study.left()
    # Dense it is better than any other will be when it is sparse.
    first = next(left)
    found = go(study, first, [9.0] * 4 + [1.0] * 5, sparse_after=4)
    assert found.values == measured_of(study, 0) == [None] * 4 + [1.0] * 5
    assert found.of_weights(9) == 1.0 and found.of_weights(4) == 9.0
    study.tell(first, {"metric": 1.0, "size": 1})
    # Of later ones neither is a value of before compared, nor are theirs.
    for sparse_after in (0, 4, 9):
        trial = next(left)
        assert len(go(study, trial, [5.0] * 9, sparse_after).values) == 9
        study.tell(trial, {"metric": 5.0, "size": 1})


def measured_of(study, number):
    return study.study.trials[number].user_attrs["validations"]


def test_a_trial_that_was_cut_off_reports_each_validation_once(tmp_path, recwarn):
    plan = Plan((RATE,), ("metric",), 2, 9, None, True)
    for count in (2, 9):
        study = open_study(tmp_path / "search.db", plan, "max", 0, {})
        trial = next(study.left())
        rate = study.draw(trial)["optimizer.lr"]
        callback = EndEarly(study, trial, "val/a", "max")
        for value in curve(rate, 9)[:count]:
            callback.on_validation_end(trainer(value), None)
    found = study.study.trials[0].intermediate_values
    assert list(found) == list(range(1, 9))
    assert not [w for w in recwarn if "already reported" in str(w.message)]


def test_a_trial_is_compared_after_1_3_and_9_validations():
    assert [count for count in range(1, 28) if is_rung(count)] == [1, 3, 9, 27]

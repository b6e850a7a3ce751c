"""What is said of a trial of a search, which has no report, and what can be done with it."""

import json

import pytest
from omegaconf import OmegaConf

from lightning_distill.jobs.evaluate import evaluate
from lightning_distill.jobs.export import export
from lightning_distill.run.resuming import why_not_ended
from lightning_distill.run.trial_of_search import is_trial, keeps_student, why_no_report

TRAIN = "Train it to the end: lightning-distill student.layers=2"
SAID = {
    0: f"is a trial of a search, which has no report. {TRAIN}",
    1: f"and its weights were not kept, for another student is better. {TRAIN}",
    2: f"is a trial of a search that ended early: trial 0 was better. {TRAIN}",
    3: f"is a trial of a search that failed: too many layers. {TRAIN}",
    4: "is a trial of a search that has not ended: go on with the search, resume=",
}


@pytest.fixture
def search(tmp_path):
    states = ["complete", "complete", "pruned", "failed"]
    reasons = [None, None, "trial 0 was better", "too many layers."]
    trials = [
        {
            "folder": f"trials/{number:03d}",
            "state": state,
            "reason": reason,
            "command": "lightning-distill student.layers=2",
        }
        for number, (state, reason) in enumerate(zip(states, reasons, strict=True))
    ]
    (tmp_path / "search.json").write_text(json.dumps({"trials": trials}))
    (tmp_path / "search.db").touch()
    for number in range(5):
        folder = tmp_path / "trials" / f"{number:03d}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("seed: 0")
    (tmp_path / "trials" / "000" / "student").mkdir()
    return tmp_path


@pytest.mark.parametrize("number", SAID)
def test_what_became_of_a_trial(search, number, monkeypatch):
    run = search / "trials" / f"{number:03d}"
    assert is_trial(run) and keeps_student(run) == (number == 0)
    assert why_no_report(run).startswith(f"{run} is a trial of a search")
    assert SAID[number] in why_not_ended(run)
    # As it is named from within.
    monkeypatch.chdir(run)
    assert is_trial(run.relative_to(run)) and "go on with resume" not in why_not_ended(run)


@pytest.mark.parametrize("number", list(SAID)[1:])
def test_jobs_that_are_given_one_without_a_student_say_it(search, number):
    run = search / "trials" / f"{number:03d}"
    with pytest.raises(ValueError) as info:
        evaluate(OmegaConf.create({}), str(run))
    assert SAID[number] in str(info.value)
    with pytest.raises(FileNotFoundError) as info:
        export(OmegaConf.create({}), str(run))
    assert SAID[number] in str(info.value)


def test_before_the_first_trial_has_ended_nothing_is_known_of_it(search):
    (search / "search.json").unlink()
    assert "has not ended: go on with the search" in why_not_ended(search / "trials" / "000")


def test_a_run_in_a_folder_of_that_name_is_no_trial(search):
    (search / "search.db").unlink()
    run = search / "trials" / "000"
    assert not is_trial(run) and f"The run {run} has not ended" in why_not_ended(run)

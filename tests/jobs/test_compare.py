"""job=compare on the folders that runs leave."""

import importlib.util
import json

import pytest
from omegaconf import OmegaConf
from scipy.stats import ttest_rel

from lightning_distill.jobs import compare

ALONE, TAUGHT = [0.50, 0.52, 0.49, 0.53, 0.51], [0.60, 0.61, 0.62, 0.60, 0.63]


def row(value):
    return {"name": "", "metrics": {"accuracy": value, "loss": 1 - value}}


def run(folder, seed, alone, taught, teacher=0.9, metric="accuracy", better=True, **settings):
    folder.mkdir(parents=True)
    report = {
        "metric": metric, "higher_is_better": better, "student": row(taught),
        "teacher": row(teacher), "baseline": None if alone is None else row(alone),
        "facts": {"test rows": "892"},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "config.yaml").write_text("seed: 0\n")
    job = {"_target_": "lightning_distill.jobs.distill"}
    typed = {
        "job": job,
        "seed": seed,
        "data": {"batch_size": 8, "seed": "${seed}"},
        "output_dir": str(folder),
    }
    (folder / "run.json").write_text(json.dumps({"typed": {**typed, **settings}}))


def sweep(root, name="sweep", taught=TAUGHT, start=0, **settings):
    for seed, values in enumerate(zip(ALONE, taught, strict=True), start):
        run(root / name / str(seed), seed, *values, **settings)
    return root / name


def compared(tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    return compare(OmegaConf.create({"output_dir": str(out)}), **options), out


def test_it_says_whether_the_teacher_helps(tmp_path, capsys):
    _, out = compared(tmp_path, runs=str(sweep(tmp_path)))
    content = json.loads((out / "compare.json").read_text())
    (line,) = content["settings"]
    assert line["p"] == pytest.approx(ttest_rel(TAUGHT, ALONE).pvalue)
    assert line["gain"] == pytest.approx(0.102) and line["verdict"] == "helps"
    assert line["seeds"] == [0, 1, 2, 3, 4] and line["alone"] == ALONE
    text = (out / "compare.md").read_text()
    assert "The teacher helps." in text and "0.5100 ± 0.0158" in text
    assert all(folder in text for folder in line["runs"])
    assert (out / "compare.png").stat().st_size > 1000
    assert "The teacher helps." in capsys.readouterr().out


def test_a_loss_is_better_where_it_is_less(tmp_path):
    found, _ = compared(tmp_path, runs=[str(sweep(tmp_path, metric="loss", better=False))])
    assert found.lines()[0]["verdict"] == "helps"


def test_what_is_not_shown_says_what_would_show_it(tmp_path, capsys):
    weak = [0.52, 0.51, 0.53, 0.52, 0.52]
    found, _ = compared(tmp_path, runs=str(sweep(tmp_path, taught=weak)))
    (line,) = found.lines()
    assert line["verdict"] == "not shown" and line["seeds_needed"] > 5
    (sentence,) = found.sentences()
    assert f"it takes {line['seeds_needed']} seeds; there are 5." in sentence
    found, _ = compared(tmp_path, runs=str(tmp_path / "sweep"), least_gain=0.1)
    assert "does not help. A gain of 0.1 is ruled out." in found.sentences()[0]


def test_several_settings_are_told_apart_and_corrected_for(tmp_path):
    soft = {"criteria": {"hard_label": {"weight": 1}, "soft_target": {"weight": 0.9}}}
    hint = {"criteria": {"hard_label": {"weight": 1}, "hint": {"weight": 1}}}
    less = {"criteria": {"hard_label": {"weight": 1}, "hint": {"weight": 0.5}}}
    first = sweep(tmp_path, "a", **soft)
    second = sweep(tmp_path, "b", **hint)
    found, _ = compared(tmp_path, runs=[str(first), str(second)])
    names = [line["setting"] for line in found.lines()]
    assert names == ["criteria=[hard_label,soft_target]", "criteria=[hard_label,hint]"]
    for line in found.lines():
        assert line["p_corrected"] == pytest.approx(2 * line["p"])
    found, _ = compared(tmp_path, runs=[str(second), str(sweep(tmp_path, "c", **less))])
    assert [s.name for s in found.settings] == [
        "criteria.hint.weight=1",
        "criteria.hint.weight=0.5",
    ]


def test_the_newest_sweep_is_compared(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "lightning_distill")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no sweep.*-m seed=0,1,2,3,4"):
        compared(tmp_path)
    sweep(tmp_path / "runs" / "sweep", "2026")
    (tmp_path / "runs/sweep/2026/1/report.json").unlink()
    job = {"_target_": "lightning_distill.jobs.finetune"}
    run(tmp_path / "runs/sweep/2026/teacher", 0, None, 0.9, job=job)
    found, _ = compared(tmp_path)
    assert found.lines()[0]["seeds"] == [0, 2, 3, 4]
    assert "has not ended: go on with resume=" in caplog.text


def test_runs_that_cannot_be_compared(tmp_path):
    first = sweep(tmp_path, "a")
    other = sweep(tmp_path, "b", metric="loss", better=False)
    with pytest.raises(ValueError, match="different metric and cannot be compared"):
        compared(tmp_path, runs=[str(first), str(other)])
    with pytest.raises(ValueError, match="same settings and the same seed 0"):
        compared(tmp_path, runs=[str(first), str(sweep(tmp_path, "c"))])
    run(tmp_path / "d", 0, None, 0.6)
    with pytest.raises(ValueError, match="trained no student alone.*baseline=true"):
        compared(tmp_path, runs=str(tmp_path / "d"))
    with pytest.raises(FileNotFoundError, match="names nowhere, and there is no such folder"):
        compared(tmp_path, runs="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no finished run of job=distill in"):
        compared(tmp_path, runs=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"job\.alpha"):
        compared(tmp_path, runs=str(first), alpha=2)


def test_one_run_shows_nothing(tmp_path):
    run(tmp_path / "one", 0, 0.5, 0.9)
    found, _ = compared(tmp_path, runs=str(tmp_path / "one"))
    assert found.sentences() == [
        "The teacher's help is not shown. One seed shows nothing: run more, as in -m "
        "seed=0,1,2,3,4."
    ]


def test_scipy_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"job=compare needs the package scipy.*\[compare\]"):
        compared(tmp_path, runs=str(tmp_path))

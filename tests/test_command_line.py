"""The sentences of the command line, from an installed wheel, in another folder."""

import copy
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from processes import run_program
from safetensors.torch import load_file
from tiny import bert
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_distill import __version__
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.main import main
from lightning_distill.report.curves import read_metrics
from lightning_distill.report.measure import FIGURES
from lightning_distill.training.module import DistillationModule

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ROWS = 48
WORDS = {"good": ["fine", "great", "happy", "bright"], "bad": ["poor", "awful", "sad", "dull"]}
TINY = [
    "student.hidden_size=16",
    "student.num_attention_heads=2",
    "student.intermediate_size=16",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "data.batch_size=8",
]


def sentence(i: int) -> tuple[str, str]:
    label = "good" if i % 2 else "bad"
    words = [WORDS[label][(i * 7 + k) % 4] for k in range(2 + i % 4)]
    return f"a {' '.join(words)} film number {i}", label


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """A folder with data, a teacher that was saved by transformers, and a class of one's own."""
    folder = tmp_path_factory.mktemp("work")
    rows = [sentence(i) for i in range(ROWS)]
    for name, part in (("train", rows[:32]), ("dev", rows[32:40]), ("test", rows[40:])):
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in part)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    tokenizer = train_word_pieces([text for text, _ in rows], 300, 32)
    teacher = bert(3, 32, num_labels=2, vocab_size=len(tokenizer))
    teacher.config.id2label = {0: "bad", 1: "good"}
    teacher.config.label2id = {"bad": 0, "good": 1}
    teacher.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    broken = {"undefined": teacher, "animals": bert(1, 16, num_labels=2, vocab_size=len(tokenizer))}
    broken["few_words"] = bert(1, 16, num_labels=2, vocab_size=9)
    broken["headless"] = bert(1, 16, num_labels=2, vocab_size=len(tokenizer)).bert
    for name, model in broken.items():
        model = copy.deepcopy(model)
        if name == "undefined":
            model.classifier.bias.data.fill_(float("nan"))
        if name == "animals":
            model.config.id2label = {0: "cat", 1: "dog"}
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "empty.tsv").write_text("")
    (folder / "header.tsv").write_text("text\tlabel\n")
    (folder / "one.tsv").write_text("text\tlabel\nfine\tgood\n")
    (folder / "wide.tsv").write_text("text\tlabel\nfine\tgood\nso\tso\tgood\n")
    (folder / "mine.py").write_text(
        "from torch import nn\n\n\n"
        "class Mine(nn.Module):\n"
        "    def forward(self, student, teacher):\n"
        "        return (student - teacher).abs().mean()\n"
    )
    configs = folder / "configs" / "criteria"
    configs.mkdir(parents=True)
    (configs / "mine.yaml").write_text(
        "mine:\n  _target_: lightning_distill.Term\n  criterion: {_target_: mine.Mine}\n"
        "  inputs: {student: student.logits, teacher: teacher.logits}\n"
    )
    return folder


@pytest.fixture
def command(installed, work, tmp_path):
    def run(*arguments: str, fails: bool = False, environment: dict | None = None):
        env = {
            **os.environ,
            "PYTHONPATH": str(installed),
            "OMP_NUM_THREADS": "1",
            "LIGHTNING_DISTILL_CACHE": str(work / "cache"),
            "COLUMNS": "200",
            **(environment or {}),
        }
        # Coverage would follow the subprocess into the wheel's copy.
        env.pop("COV_CORE_SOURCE", None)
        done = run_program(installed / "bin" / "lightning-distill", arguments, work, env)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


def out(tmp_path: Path) -> list[str]:
    return [f"hydra.run.dir={tmp_path / 'run'}"]


FILES = ["data=text_files", "data.train=train.tsv", "data.validation=dev.tsv", "data.test=test.tsv"]
FILES += ["data.eval_batch_size=8"]
FROM_FOLDER = ["teacher=pretrained", "teacher.path=teacher"]


def report(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run" / "report.json").read_text())


def test_the_package_is_the_wheels(installed, work, tmp_path):
    program = tmp_path / "where.py"
    program.write_text("import lightning_distill.main as m\nprint(m.__file__)\n")
    done = run_program(program, [], work, {**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0 and str(installed) in done.stdout


def test_the_version_is_that_of_the_package(command, installed):
    printed = command("--version").stdout
    assert printed.startswith(f"lightning-distill {__version__} (torch {torch.__version__}")
    assert list(installed.glob(f"lightning_distill-{__version__}.dist-info"))


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_configuration_say_what_can_be_chosen(command, arguments):
    done = command(*arguments)
    assert ("lightning-distill job=finetune" in done.stdout) == (arguments == ["--help"])
    assert "soft_target" in done.stdout


def test_files_a_pretrained_teacher_and_a_student_cut_from_it(command, tmp_path, work):
    arguments = ["student=from_teacher", "student.layers=2", "optimizer.lr=1e-3", *TINY[3:]]
    done = command(*FILES, *FROM_FOLDER, *arguments, *out(tmp_path))
    assert "student alone" in done.stdout and "teacher" in done.stdout
    run = tmp_path / "run"
    for name in ("report.md", "curves.png", "metrics.csv", "config.yaml"):
        assert (run / name).stat().st_size > 0, name
    assert not list(run.glob("**/profile.*")), "nobody asked for a profile"
    model = AutoModelForSequenceClassification.from_pretrained(run / "student")
    assert model.config.num_hidden_layers == 2
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert len(AutoTokenizer.from_pretrained(run / "student")) == model.config.vocab_size
    found = report(tmp_path)
    assert found["teacher"]["parameters"] > found["student"]["parameters"]
    assert found["baseline"]["metrics"].keys() == found["student"]["metrics"].keys()
    # The saved student is the best of its epochs, and the test is of that one.
    saved = load_file(run / "student" / "model.safetensors")
    checkpoint = torch.load(next(run.glob("checkpoints/best-*.ckpt")), weights_only=True)
    for name, value in saved.items():
        assert torch.equal(value, checkpoint["state_dict"][f"student.{name}"])


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "criteria=[hard_label,soft_target]",
            "criteria.soft_target.weight=0.9",
            "criteria.soft_target.criterion.temperature=4",
        ],
        [
            "criteria=[knowledge_distillation]",
            "criteria.knowledge_distillation.criterion.loss_types=[CE,KL]",
            "criteria.knowledge_distillation.criterion.loss_weight_ratio=[0.3,0.7]",
        ],
        [
            "criteria=[intermediate_layers]",
            "criteria.intermediate_layers.layer_mappings="
            "[[bert.encoder.layer.0.output,bert.encoder.layer.1.output]]",
            "criteria.intermediate_layers.add_origin_loss=true",
        ],
        ["criteria=[hard_label]"],
        [
            "criteria=[hard_label,hint]",
            "criteria.hint.inputs.student='student.hidden_states[*]'",
            "criteria.hint.inputs.teacher='teacher.hidden_states[*]'",
        ],
        ["criteria=[hard_label,soft_target]", "balance=grad_norm"],
        ["criteria=[hard_label,soft_target]", "optimizer=dot", "scheduler=constant"],
        [
            "criteria=[hard_label,crd,queue_similarity,srd]",
            "+criteria.crd.inputs.labels=batch.labels",
        ],
        [
            "criteria=[hard_label,sample_weighted]",
            "criteria.sample_weighted.criterion.weight._target_="
            "lightning_distill.weights.TeacherConfidence",
        ],
        ["--config-dir", "configs", "criteria=[hard_label,mine]"],
        ["hydra.searchpath=[file://configs]", "criteria=[hard_label,mine]"],
    ],
    ids=[
        "soft",
        "kd",
        "layers",
        "baseline",
        "hint",
        "balance",
        "dot",
        "memory",
        "weighted",
        "mine",
        "searchpath",
    ],
)
def test_criteria_are_chosen_in_one_line(command, tmp_path, arguments):
    command(*arguments, *FILES, *FROM_FOLDER, *TINY, "baseline=false", *out(tmp_path))
    names = next(a for a in arguments if a.startswith("criteria=["))[10:-1].split(",")
    head = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert {f"train/{name}" for name in names} <= set(head.split(","))


def test_finetune_then_evaluate_then_export_then_inspect(command, tmp_path, work):
    command("job=finetune", "student=from_config", *FILES, *TINY, *out(tmp_path))
    run = tmp_path / "run"
    assert "agreement" not in (run / "report.md").read_text()
    elsewhere = [f"hydra.run.dir={tmp_path / 'second'}"]
    done = command("job=evaluate", f"job.path={run}", *FILES, "trainer.accelerator=cpu", *elsewhere)
    found = json.loads((tmp_path / "second" / "evaluation.json").read_text())
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["accuracy"]
    assert found["accuracy"] == pytest.approx(accuracy)
    assert f"{accuracy:.4f}" in done.stdout
    done = command("job=export", f"job.run={run}", f"job.to={tmp_path / 'out'}", *elsewhere)
    assert re.search(r"reloaded logits differ by \S+ on 8 test rows of the run", done.stdout)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in load_file(run / "student" / "model.safetensors").items():
        assert torch.equal(value, exported[name])
    done = command("job=inspect", *FILES, *FROM_FOLDER, *TINY[:3], *elsewhere)
    assert "bert.encoder.layer.0.attention" in done.stdout
    assert "layer_mappings=[[bert.encoder.layer.0,bert.encoder.layer.2]]" in done.stdout


def test_a_finetuned_model_is_a_teacher(command, tmp_path):
    command("job=finetune", "student=from_config", *FILES, *TINY, *out(tmp_path))
    teacher = f"teacher.path={tmp_path / 'run' / 'student'}"
    more = [f"hydra.run.dir={tmp_path / 'second'}", "baseline=false"]
    command("teacher=pretrained", teacher, *FILES, *TINY, *more)


def test_a_profile_of_a_run_is_shown_and_written(command, tmp_path):
    small = [*FILES, *TINY, "data.length_bucketing=false"]
    done = command("profile=true", *FROM_FOLDER, *small, *out(tmp_path))
    run = tmp_path / "run"
    assert "Where the time went" in done.stdout
    assert "Mean of 3 steps (batches) after 5 to warm up" in done.stdout
    assert "profile.png" in done.stdout
    assert "![where the time went](profile.png)" in (run / "report.md").read_text()
    assert (run / "profile.png").stat().st_size > 0
    found = json.loads((run / "profile.json").read_text())
    assert found["num_workers"] is None and found["length_bucketing"] is False
    assert sum(found["shares"].values()) == pytest.approx(1.0)
    assert found["shares"]["teacher"] > 0 and found["times"]["samples"] == 24
    # The student alone is measured beside it, without a teacher to ask.
    alone = json.loads((run / "baseline" / "profile.json").read_text())
    assert alone["times"]["steps"] == 3 and alone["shares"]["teacher"] == 0
    # Resumed when all is done, it shows the same again.
    again = command(f"resume={run}")
    assert "Mean of 3 steps (batches) after 5 to warm up" in again.stdout
    assert json.loads((run / "profile.json").read_text()) == found


def test_a_profile_of_a_finetuning(command, tmp_path):
    arguments = ["job=finetune", "student=from_config", "profile=true", "trainer.max_steps=3"]
    done = command(*arguments, *FILES, *TINY, *out(tmp_path))
    words = "Too few steps for a profile: 3, and the first 5 only warm up."
    assert words in done.stdout and words in (tmp_path / "run" / "report.md").read_text()
    assert not (tmp_path / "run" / "profile.png").exists()


def test_a_sweep_gives_a_directory_per_member(command, tmp_path):
    arguments = ["-m", "seed=1,2", "criteria=[hard_label],[hard_label,soft_target]"]
    command(
        *arguments, *FILES, *FROM_FOLDER, *TINY, "baseline=false", f"hydra.sweep.dir={tmp_path}"
    )
    found = sorted(p.parent.name for p in tmp_path.glob("*/report.json"))
    assert found == ["0", "1", "2", "3"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
EXACT = [
    "+student.hidden_dropout_prob=0.0",
    "+student.attention_probs_dropout_prob=0.0",
    "student.initializer_range=0.05",
    "criteria=[hard_label,soft_target,hint]",
    "data.labelled_rows=20",
    "optimizer._target_=torch.optim.SGD",
    "~optimizer.betas",
    "~optimizer.eps",
    "~optimizer.fused",
    "optimizer.lr=0.05",
    "baseline=false",
]


def test_two_processes_learn_what_one_learns_from_the_whole_batch(command, tmp_path, work):
    """With features, adapters, padding and unlabelled rows, which differ from rank to rank."""
    common = [*FILES, *FROM_FOLDER, *TINY[:-1], *EXACT]
    one = tmp_path / "one"
    command(*common, "data.batch_size=8", f"hydra.run.dir={one}")
    before = set(work.glob("runs/distill/*"))
    command(*common, *DDP, "data.batch_size=4")
    # Each process names the directory by itself, and they name the same.
    (two,) = set(work.glob("runs/distill/*")) - before
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    assert any("adapters" in name for name in expected)
    start = AutoModelForSequenceClassification.from_pretrained(one / "student").state_dict()
    assert start
    for name, value in expected.items():
        assert (value - found[name]).abs().max() < 1e-6, name
    # What is logged is the mean over all rows, not that of one process.
    logged = [read_metrics(run / "metrics.csv") for run in (one, two)]
    assert {"train/loss", "train/hint", "val/loss"} <= set(logged[0]) == set(logged[1])
    for name in logged[0]:
        if name.startswith(("train/", "val/")):
            expected, found = (torch.tensor(run[name]) for run in logged)
            assert_close(found, expected, rtol=0.0, atol=1e-5, msg=name)
    results = [json.loads((run / "result.json").read_text())["metrics"] for run in (one, two)]
    for name in ("accuracy", "teacher_accuracy", "agreement"):
        assert results[0][name] == pytest.approx(results[1][name]), name


def test_two_processes_run_the_default_with_its_teacher_and_baseline(command, work):
    small = ["data.packages=2", "data.labelled_rows=30", "trainer.max_steps=3", *TINY[:3]]
    small += ["teacher.max_epochs=1", "teacher.model.num_hidden_layers=1"]
    small += ["teacher.model.hidden_size=16", "+trainer.limit_train_batches=3", "profile=true"]
    before = set(work.glob("runs/distill/*"))
    command(*DDP, *small)
    (run,) = set(work.glob("runs/distill/*")) - before
    found = json.loads((run / "report.json").read_text())
    assert all(found[row] is not None for row in ("teacher", "baseline", "student"))
    student, alone = (json.loads((run / n / "result.json").read_text()) for n in ("", "baseline"))
    assert student["steps"] == alone["steps"] == 3
    # Measured by each, written by the first.
    times = json.loads((run / "profile.json").read_text())["times"]
    assert (times["processes"], times["seen"]) == (2, 3)


def test_a_process_without_a_labelled_row_keeps_nobody_waiting(command, tmp_path, work):
    # One validation row for two processes, and test rows that are labelled on one of them only.
    (work / "first.tsv").write_text("text\tlabel\nfine\tgood\n")
    half = "".join(f"fine film\t{'good' if i % 2 else ''}\n" for i in range(12))
    (work / "half.tsv").write_text("text\tlabel\n" + half)
    files = [*FILES[:2], "data.validation=first.tsv", "data.test=half.tsv"]
    command(*files, *FROM_FOLDER, *TINY, *DDP, "baseline=false", *out(tmp_path))
    found = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert {"accuracy", "teacher_accuracy", "agreement", "hard_label", "loss"} <= set(found)


def test_processes_that_would_wait_for_unused_weights_are_refused(command, tmp_path):
    arguments = [*FILES, *FROM_FOLDER, *TINY, *DDP, "criteria=[hint]", "baseline=false"]
    done = command(*arguments, *out(tmp_path), fails=True)
    assert "4 parameters of the student get no gradient from any term" in " ".join(
        done.stderr.split()
    )
    command(*arguments, "trainer.strategy=ddp_find_unused_parameters_true", *out(tmp_path))


def test_processes_started_by_torchrun_share_one_directory(command, installed, work, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["trainer=ddp", "trainer.devices=2", "baseline=false", "trainer.max_steps=2"]
    subprocess.run(
        [*script, "-m", "lightning_distill.main", *FILES, *TINY, *arguments]
        + ["teacher=pretrained", f"teacher.path={work / 'teacher'}"]
        + [f"data.{n}={work / f}" for n, f in (("train", "train.tsv"), ("test", "test.tsv"))]
        + [f"data.validation={work / 'dev.tsv'}"],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        timeout=300,
    )
    assert len(list(tmp_path.glob("runs/distill/*"))) == 1


def test_a_killed_run_goes_on_where_it_was(command, tmp_path, work, installed):
    # With dropout, as always.
    common = [*FILES, *FROM_FOLDER, *TINY[:3], *TINY[4:], *EXACT[2:]]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command(*common, "trainer.max_epochs=3", f"hydra.run.dir={whole}")
    (work / "stop.py").write_text(
        "import os, signal\nimport lightning as L\n\n\n"
        "class KillAfterOneEpoch(L.Callback):\n"
        "    def on_train_epoch_start(self, trainer, pl_module):\n"
        "        if trainer.current_epoch == 1 and not os.environ.get('GO_ON'):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    stop = ["+callbacks.kill._target_=stop.KillAfterOneEpoch", "trainer.max_epochs=3"]
    command(*common, *stop, f"hydra.run.dir={cut}", fails=True)
    assert not (cut / "report.md").exists()
    command(f"resume={cut}", environment={"GO_ON": "1"})
    assert (cut / "report.md").exists()
    # The curves have no hole either.
    assert (cut / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    expected, found = weights(whole), weights(cut)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.slow
def test_a_run_killed_while_the_student_learns_alone_goes_on_where_it_was(command, tmp_path, work):
    common = [*FILES, *FROM_FOLDER, *TINY[:3], *TINY[4:], "trainer.max_epochs=3"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command(*common, f"hydra.run.dir={whole}")
    (work / "stop_alone.py").write_text(
        "import os, signal\nimport lightning as L\n\n\n"
        "class KillInTheBaseline(L.Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        alone = str(trainer.default_root_dir).endswith('baseline')\n"
        "        last = trainer.fit_loop.total_batch_idx == 4\n"
        "        if alone and last and not os.environ.get('GO_ON'):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    stop = ["+callbacks.kill._target_=stop_alone.KillInTheBaseline"]
    command(*common, *stop, f"hydra.run.dir={cut}", fails=True)
    assert (cut / "result.json").exists() and not (cut / "baseline" / "result.json").exists()
    command(f"resume={cut}", environment={"GO_ON": "1"})
    for folder in ("", "baseline"):
        expected, found = weights(whole / folder), weights(cut / folder)
        for name, value in expected.items():
            assert torch.equal(value, found[name]), (folder, name)
        metrics = [json.loads((r / folder / "result.json").read_text()) for r in (whole, cut)]
        assert metrics[0]["metrics"] == metrics[1]["metrics"], folder


@pytest.mark.slow
def test_a_member_of_a_sweep_that_fails_does_not_end_the_others(command, tmp_path):
    small = [*FILES, *FROM_FOLDER, *TINY, "baseline=false", f"hydra.sweep.dir={tmp_path}"]
    done = command("-m", "optimizer.lr=1e-3,-1,2e-3", *small, fails=True)
    assert sorted(p.parent.name for p in tmp_path.glob("*/report.json")) == ["0", "2"]
    assert "optimizer.lr must be positive, got -1" in done.stderr
    assert "a run of the sweep has failed" in done.stderr


def test_the_default_runs_and_finds_its_teacher_again(command, tmp_path):
    small = [
        "data.packages=3",
        "data.labelled_rows=30",
        "teacher.max_epochs=1",
        "teacher.model.num_hidden_layers=1",
        "teacher.model.hidden_size=16",
        "trainer.max_epochs=1",
        *TINY[:3],
    ]
    first = command(*small, *out(tmp_path))
    assert "training once, then kept in" in first.stdout
    second = command(*small, f"hydra.run.dir={tmp_path / 'again'}")
    assert "Teacher: found in" in second.stdout
    reports = [json.loads((tmp_path / d / "report.json").read_text()) for d in ("run", "again")]
    for report_ in reports:
        for row in ("teacher", "student", "baseline"):
            for name in (*FIGURES, "missing"):
                if name != "flops":
                    report_[row].pop(name)
        report_.pop("facts")
        command, about = report_["origin"].pop("command"), report_["origin"].pop("times and memory")
        assert command.startswith("lightning-distill data.packages=3 data.labelled_rows=30")
        assert about.startswith("on cpu, ") and "; input_ids 1 × " in about
    assert reports[0] == reports[1]
    student, alone = (
        json.loads((tmp_path / "run" / name / "result.json").read_text())
        for name in ("", "baseline")
    )
    assert student["steps"] == alone["steps"] > 10
    # Thirty labelled rows are one batch.
    assert alone["epochs"] == alone["steps"]


def test_the_sst2_experiment(command, tmp_path, work):
    data = work / "data" / "sst2"
    data.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev", "test"):
        rows = (work / f"{name}.tsv").read_text().splitlines()[1:]
        text = "\n".join(rows).replace("\tgood", "\t1").replace("\tbad", "\t0")
        (data / f"{name}.tsv").write_text(text + "\n")
    small = ["teacher.max_epochs=1", "teacher.model.num_hidden_layers=1", "baseline=false", *TINY]
    env = {"LIGHTNING_DISTILL_DATA": str(work / "data")}
    command("experiment=sst2", *small, *out(tmp_path), environment=env)
    assert report(tmp_path)["metric"] == "accuracy"


BAD = [
    (["criteria=[soft_targt]"], "soft_targt"),
    (["criteria.soft_target.wieght=1"], "wieght"),
    (["trainer.max_epoch=1"], "max_epoch"),
    (["criteria.soft_target.criterion.temperature=0"], "temperature must be positive, got 0"),
    (
        ["criteria.soft_target.weight=-1"],
        "criteria.soft_target.weight must not be negative, got -1",
    ),
    (["criteria=[]"], "`criteria` is empty"),
    (["metrics=[]"], "`metrics` is empty"),
    (["monitor=val/acuracy"], "`monitor` must be one of val/accuracy"),
    (["mode=maximum"], "`mode` must be min or max"),
    (["metric_drop=percent"], "`metric_drop` must be relative or absolute"),
    (["max_metric_drop=-1"], "max_metric_drop must not be negative"),
    (
        ["teacher.path=teachr"],
        "teacher.path=teachr is neither a folder here nor a model in the cache of the Hugging Face",
    ),
    (["teacher.path=./teachr"], "There is no folder ./teachr (teacher.path). Nearest: teacher"),
    (["student=pretrained", "student.path=./nowhere"], "There is no folder ./nowhere"),
    (["teacher.auto_class=AutoModelForSequenceClasification"], "Nearest: AutoModelForSequenceCl"),
    (["teacher.dtype=float8"], "`dtype` must be one of float32, bfloat16, float16"),
    (["student.model_type=brt"], "`model_type` 'brt' is unknown"),
    (["+student.hiden_size=8"], "no configuration field 'hiden_size'. Nearest: hidden_size"),
    (
        ["student.hidden_size=15"],
        "student.hidden_size=15 must be a multiple of student.num_attention_heads=2",
    ),
    (["student=from_teacher", "student.layers=9"], "`layers` must be from 1 to 3"),
    (["student=from_teacher", "student.keep=unifrm"], "Did you mean 'uniform'"),
    (
        ["data.train=trian.tsv"],
        "There is no file trian.tsv (data.train). The folder . has train.tsv",
    ),
    (["data.train=empty.tsv"], "empty.tsv (data.train) is empty"),
    (["data.train=header.tsv"], "header.tsv has no rows"),
    (["data.train=one.tsv"], "There is only one class (good)"),
    (["data.train=one.tsv", "data.validation=null"], "10% of the 1 training rows is 0"),
    (["data.train=wide.tsv"], "Row 3 of wide.tsv has 3 cells, but its header names 2 columns"),
    (["teacher.path=animals"], "The data's labels (bad, good) are not the teacher's (cat, dog)"),
    (["teacher.path=few_words"], "The teacher knows 9 token ids, but the data holds id"),
    (["teacher.path=headless"], "The teacher headless lacks classifier.bias, classifier.weight"),
    (["teacher.path=undefined"], "Term 'soft_target' is nan on the first batch. Look for NaN"),
    (
        ["data.task=multi_label", "metrics=[multilabel_f1]", "criteria=[hard_label,soft_target]"],
        "compares a softmax over the classes",
    ),
    (["trainer.max_epochs=many"], "trainer.max_epochs must be a whole number, got 'many'"),
    (["trainer.max_epochs=0"], "trainer.max_epochs must be at least 1, got 0"),
    (["trainer.accumulate_grad_batches=0"], "accumulate_grad_batches must be at least 1, got 0"),
    (["trainer.gradient_clip_val=tight"], "trainer.gradient_clip_val must be a number"),
    (["seed=x"], "seed must be a whole number, got 'x'"),
    (["optimizer.lr=-1"], "optimizer.lr must be positive, got -1"),
    (["data.batch_size=large"], "data.batch_size must be a whole number, got 'large'"),
    (
        ["criteria.soft_target.weight=much"],
        "criteria.soft_target.weight must be a number, got 'much'",
    ),
    (["criteria.soft_target.criterion.temperature=hot"], "temperature must be a number, got 'hot'"),
    (["criteria.soft_target.criterion.temperature=null"], "`temperature` must be a number, got No"),
    (["criteria.soft_target.criterion.temperature=nan"], "must be finite, got nan"),
    (["criteria.soft_target.criterion.temperature=inf"], "must be finite, got inf"),
    (
        ["trainer.precision=float7"],
        "trainer.precision must be one that Lightning knows, got 'float7'",
    ),
    (
        ["trainer.accelerator=gpu"],
        "trainer.accelerator=gpu trainer.devices=1 does not work here: No supported gpu",
    ),
    (["criteria.soft_target.inputs.student=student.logit"], "logit"),
    (["data.train=mine.py"], "must end in .csv, .tsv"),
    (["data.text=txt"], "no column 'txt' (text); it has text, label. Did you mean text=text"),
    (["data.label=lable", "data.labelled_rows=4"], "Set data.label=label"),
    (["data.task=sorting"], "`task` must be one of"),
    (["data.task=ranking"], "got ranking, which is read by data=embedding_files"),
    (["data.batch_size=0"], "data.batch_size must be at least 1, got 0"),
    (["data.max_length=2"], "`max_length` must be at least 3, got 2"),
    (["data.labelled_rows=1000"], "`labelled_rows` is 1000, but only 32"),
    (["data.tokenizer=./nowhere"], "There is no tokenizer in ./nowhere"),
    (["data.task=regression", "metrics=[pearson]"], "is no number, which data.task=regression"),
    (["data.label_names=[bad,worse]"], "is none of the classes (bad, worse)"),
    (["data.max_length=64", "data.train=long.tsv"], "reads at most 32 tokens"),
    (["resume=nowhere"], "`resume` must be the directory of a run"),
    (["job=evaluate", "job.path=./nowhere"], "There is no folder ./nowhere"),
    (
        ["job=export", "job.run=nowhere"],
        "`job.run` must be the directory of a run, which holds config.yaml; nowhere does not",
    ),
    (["num_labels=5"], "num_labels=5, but the data has num_labels=2"),
    (["criteria=[hint]", "criteria.hint.adapter=lineer"], "must be 'linear', 'map', null"),
    (
        ["criteria=[intermediate_layers]"],
        "`layer_mappings` is empty",
    ),
    (
        [
            "criteria=[intermediate_layers]",
            "criteria.intermediate_layers.layer_mappings=[[bert.a]]",
        ],
        "has no submodule 'bert.a'",
    ),
    (["data=hub"], "Name a data set"),
    (["data=hub", "data.glue=sst3"], "`glue` must be one of"),
    (["optimizer.lr=fast"], "optimizer.lr must be a number, got 'fast'"),
    (["-m", "trainer=ddp", "trainer.devices=2"], "A sweep (-m) cannot start several processes"),
    (["-m", "trainer.devices=2"], "A sweep (-m) cannot start several processes"),
    (["hparams_search=grid"], "add -m, as in lightning-distill -m hparams_search=grid"),
    (["teacher=null"], "cannot be null: write ~teacher instead of teacher=null"),
    (["scheduler=null"], "write ~scheduler instead of scheduler=null"),
    (["callbacks=null"], "write callbacks=[] instead of callbacks=null"),
    (["metrics=null"], "write metrics=[accuracy] instead of metrics=null"),
    (["logger=null"], "write logger=[] instead of logger=null"),
    (["criteria=[soft_targt]"], "no 'soft_targt' in the group 'criteria'. Nearest: soft_target"),
    (["~student"], "`student` is left out; choose one, as in student=from_config"),
    (["teacher.path=null"], "teacher.path is missing: name a folder that save_pretrained wrote"),
    (["student=pretrained"], "student.path is missing: name a folder that save_pretrained wrote"),
    (["data=text_files"], "data.train is missing: name a file"),
    (["data=text_files", "data.train=null"], "data.train is missing: name a file"),
    (["experiment=sst2"], "Set the variable LIGHTNING_DISTILL_DATA, or data_dir=VALUE"),
    (["seed=null"], "seed must be a whole number, got None"),
    (["seed=-1"], "seed must not be negative, got -1"),
    (["data.seed=abc"], "`seed` must be a whole number, got 'abc'"),
    (["baseline=perhaps"], "baseline must be true or false, got 'perhaps'"),
    (["profile=perhaps"], "profile must be true or false, got 'perhaps'"),
    (["profile=1"], "profile must be true or false, got 1"),
    (["compile=maybe"], "compile must be true or false, got 'maybe'"),
    (["gradient_checkpointing=1"], "gradient_checkpointing must be true or false, got 1"),
    (["compile=true", "gradient_checkpointing=true"], "do not go together: torch does not compile"),
    (["data.views=2"], "`views` is 2, but there is no `augmentation`"),
    (["teacher.quantization=int1"], "int4, int4_weights or null, got 'int1'. Did you mean int8?"),
    (["student.quantization=int44"], "student.quantization must be int8, int8_weights, int4, int4"),
    (["teacher.dtype=fp8"], "`dtype` must be one of float32, bfloat16, float16, got 'fp8'"),
    (["data.length_bucketing=maybe"], "`length_bucketing` must be true or false, got 'maybe'"),
    (["data.label_names=bad"], "`label_names` must be a list of all labels"),
    (["max_metric_drop=much"], "max_metric_drop must be a number, got 'much'"),
    (["trainer.max_steps=0"], "trainer.max_steps must be at least 1, got 0"),
    (["+trainer.limit_train_batches=0"], "trainer.limit_train_batches must be positive, got 0"),
    (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must not be negative, got -1"),
    (["trainer.log_every_n_steps=x"], "trainer.log_every_n_steps must be a whole number, got 'x'"),
    (["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps must be at least 1, got 0"),
    (
        ["callbacks=[early_stopping]", "callbacks.early_stopping.patience=-1"],
        "callbacks.early_stopping.patience must not be negative",
    ),
    (["optimizer.betas=[0.9]"], "`optimizer` (torch.optim.AdamW) does not work with lr=0.002, bet"),
    (["optimizer.betas=[0.9]", "baseline=false"], "`optimizer` (torch.optim.AdamW) does not work"),
    (["metrics.accuracy.num_classes=7", "baseline=false"], "metrics.accuracy (MulticlassAccuracy)"),
    (["scheduler.div_factor=0"], "`scheduler` (torch.optim.lr_scheduler.OneCycleLR) does not work"),
    (["student.hidden_size=0"], "student.hidden_size must be at least 1, got 0"),
    (["student.num_attention_heads=0"], "student.num_attention_heads must be at least 1, got 0"),
    (["student.num_hidden_layers=0"], "student.num_hidden_layers must be at least 1, got 0"),
    (["student.num_hidden_layers=-1"], "student.num_hidden_layers must be at least 1, got -1"),
    (["student=from_teacher", "student.layers=two"], "`layers` must be a whole number, got 'two'"),
    (["job=inspect", "job.depth=x"], "job.depth must be a whole number, got 'x'"),
    (["metrics.accuracy.num_classes=7"], "metrics.accuracy (MulticlassAccuracy) does not fit pred"),
    (["metrics=[pearson]"], "metrics.pearson (PearsonCorrCoef) measures data.task=regression, but"),
    (["data.task=multi_label", "metrics=[f1]"], "Choose what fits, as in metrics=[multilabel_f1]"),
    (
        ["data.train=lists.jsonl", "data.task=classification"],
        "is a list, but data.task=classification has one label per row",
    ),
    (["data.train=lists.jsonl", "criteria=[soft_target]"], "data.task=multi_label does not have"),
    (["data.train=broken.jsonl"], "broken.jsonl cannot be read as jsonl: JSON parse error: "),
    (["data.train=unlabelled.tsv", "criteria=[hard_label]"], "No training row has a label, and ha"),
    (
        ["~teacher"],
        "soft_target reads a teacher, and there is none: choose one, as in teacher",
    ),
    (
        ["~teacher", "criteria=[hard_label]", "student=from_teacher"],
        "needs a teacher, and the",
    ),
    (["job=evaluate", "job.path=headless"], "The model headless lacks classifier.bias"),
    (["job=evaluate", "job.path=animals"], "The data's labels (bad, good) are not the model's"),
]

# What would be found only when the teacher is trained, if nobody looked before.
BEFORE_THE_TEACHER = [
    (
        ["student.hidden_size=15"],
        "student.hidden_size=15 must be a multiple of student.num_attention_heads=2",
    ),
    (["+student.hiden_size=8"], "no configuration field 'hiden_size'. Nearest: hidden_size"),
    (["student=pretrained"], "student.path is missing: name a folder that save_pretrained wrote"),
    (["student=from_teacher", "student.layers=9"], "`layers` must be from 1 to 1"),
    (["criteria.soft_target.inputs.student=student.logit"], "Nearest: logits"),
    (
        [
            "criteria=[intermediate_layers]",
            "criteria.intermediate_layers.layer_mappings=[[bert.a]]",
        ],
        "has no submodule 'bert.a'",
    ),
    (["teacher.folder=train.tsv/in_a_file"], "The teacher cannot be kept in train.tsv/in_a_file"),
    (["teacher.max_epochs=0"], "teacher.max_epochs must be at least 1, got 0"),
    (["teacher.max_epochs=x"], "teacher.max_epochs must be a whole number, got 'x'"),
    (["teacher.learning_rate=fast"], "teacher.learning_rate must be a number, got 'fast'"),
    (["teacher.label_smoothing=2"], "teacher.label_smoothing must be at most 1, got 2"),
    (["teacher.batch_size=0"], "teacher.batch_size must be at least 1, got 0"),
    (["data.train=unlabelled.tsv"], "No training row has a label, so no teacher can be trained"),
    (["optimizer.betas=[0.9]"], "`optimizer` (torch.optim.AdamW) does not work with lr=0.002, bet"),
]


def names(cases):
    return [" ".join(arguments) for arguments, _ in cases]


@pytest.fixture
def refused(tmp_path, work, monkeypatch, capsys, unchecked_types):
    """Runs a command that must end with one message, before a step of training; returns it."""
    (work / "long.tsv").write_text("text\tlabel\n" + f"{'fine ' * 60}\tgood\nsad\tbad\n" * 9)
    (work / "unlabelled.tsv").write_text("text\tlabel\n" + "fine\t\nsad\t\n" * 9)
    (work / "lists.jsonl").write_text('{"text": "fine", "label": ["good", "bad"]}\n' * 9)
    (work / "broken.jsonl").write_text('{"text": "fine"\n{]\n')
    steps = []
    monkeypatch.setattr(DistillationModule, "training_step", lambda *_: steps.append(1))
    monkeypatch.chdir(work)
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIGHTNING_DISTILL_DATA", raising=False)
    # Hydra shows tracebacks under a debugger, and takes the tracing of coverage for one.
    monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)

    def run(*typed: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lightning-distill", *typed, *out(tmp_path)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code not in (0, None)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert "Epoch" not in shown.out
        assert not steps
        return re.sub(r"\s+", " ", shown.err)

    return run


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=names(BAD))
def test_what_is_typed_wrong_is_one_message(refused, arguments, words):
    files = [] if any(a.startswith(("data=", "experiment=")) for a in arguments) else FILES
    student = [] if any(a.startswith(("student=", "~student")) for a in arguments) else TINY[:3]
    teacher = [] if any(a.startswith(("teacher=", "~teacher")) for a in arguments) else FROM_FOLDER
    typed = [*arguments, *files, *teacher, *student, *TINY[3:-1]]
    # What is chosen last counts, and flags come first.
    typed = sorted(typed, key=lambda a: (not a.startswith("-"), a in arguments))
    assert words in refused(*typed)


@pytest.mark.parametrize(("arguments", "words"), BEFORE_THE_TEACHER, ids=names(BEFORE_THE_TEACHER))
def test_what_is_typed_wrong_is_found_before_a_teacher_is_trained(refused, arguments, words):
    student = [] if any(a.startswith("student=") for a in arguments) else TINY[:3]
    teacher = ["teacher.model.hidden_size=16", "teacher.model.num_hidden_layers=1"]
    assert words in refused(*FILES, *student, *teacher, *TINY[3:-1], *arguments)


def test_the_installed_command_is_on_the_path():
    scripts = Path(sysconfig.get_path("scripts"))
    assert (scripts / "lightning-distill").is_file()

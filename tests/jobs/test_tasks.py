"""Whole runs on other tasks and with other models than the default's."""

import csv
import json
import re
import sys
from pathlib import Path

import datasets
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny import bert
from transformers import AutoModelForSequenceClassification

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "data.batch_size=8",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
]
SMALL_STUDENT = [
    "student.hidden_size=16",
    "student.num_attention_heads=2",
    "student.intermediate_size=16",
]
SMALL_TEACHER = [
    "teacher.max_epochs=2",
    "teacher.model.hidden_size=16",
    "teacher.model.num_hidden_layers=1",
    "teacher.model.intermediate_size=16",
]
WORDS = ["fine", "poor", "long", "loud"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run_(*arguments: str) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        monkeypatch.setattr(sys, "argv", ["x", *SMALL, *arguments, f"hydra.run.dir={folder}"])
        main()
        return folder

    return run_


def text(i: int) -> str:
    return f"a {WORDS[i % 4]} film number {i % 5} {WORDS[(i // 4) % 4]}"


def files(folder: Path, labels: list) -> list[str]:
    for name in ("train", "dev"):
        lines = [json.dumps({"text": text(i), "label": label}) for i, label in enumerate(labels)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return ["data=text_files", "data.train=train.jsonl", "data.validation=dev.jsonl"]


def saved(folder: Path, layers: int, names: list[str], texts: list[str], size: int = 300) -> str:
    """A model and a tokenizer of its own."""
    tokenizer = train_word_pieces(texts, size, 32)
    model = bert(layers, 16, seed=layers, num_labels=len(names), vocab_size=len(tokenizer))
    # What it says shall depend on what it reads.
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.mul_(50)
        rows = tokenizer([text(i) for i in range(48)], padding=True, return_tensors="pt")
        model.classifier.bias -= model.eval()(**rows).logits.mean(0)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_independent_labels(run, tmp_path):
    labels = [sorted({WORDS[i % 4], WORDS[(i // 4) % 4]}) for i in range(48)]
    arguments = [*files(tmp_path, labels), "data.task=multi_label", "metrics=[multilabel_f1]"]
    folder = run(*arguments, "criteria=[hard_label,logit_mse]", *SMALL_STUDENT, *SMALL_TEACHER)
    assert report(folder)["metric"] == "multilabel_f1"
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert sorted(config["label2id"]) == sorted(WORDS)


def test_a_softmax_over_independent_labels_is_refused(run, tmp_path, capsys):
    labels = [[WORDS[i % 4]] for i in range(48)]
    arguments = [*files(tmp_path, labels), "data.task=multi_label", "metrics=[multilabel_f1]"]
    with pytest.raises(SystemExit):
        run(*arguments, *SMALL_STUDENT, *SMALL_TEACHER, "criteria=[hard_label,soft_target]")
    assert "soft_target compares a softmax over the classes" in capsys.readouterr().err


def test_numbers(run, tmp_path):
    labels = [(i % 4) + 0.1 * (i % 5) for i in range(48)]
    arguments = [*files(tmp_path, labels), "data.task=regression"]
    arguments += ["metrics=[pearson,mean_squared_error]", "criteria=[hard_label,logit_mse]"]
    folder = run(*arguments, *SMALL_STUDENT, *SMALL_TEACHER)
    found = report(folder)
    assert found["metric"] == "pearson" and found["higher_is_better"]
    assert set(found["student"]["metrics"]) == {"pearson", "mean_squared_error"}
    # The teacher is measured in the same units.
    assert found["teacher"]["metrics"]["mean_squared_error"] > 0


def test_the_smaller_error_is_better(run, tmp_path):
    labels = [(i % 4) + 0.1 * (i % 5) for i in range(48)]
    arguments = [*files(tmp_path, labels), "data.task=regression", "metrics=[mean_squared_error]"]
    arguments += ["criteria=[hard_label]", "monitor=val/mean_squared_error"]
    found = report(run("job=finetune", *arguments, *SMALL_STUDENT))
    assert found["higher_is_better"] is False


def test_student_and_teacher_each_read_with_their_own_tokenizer(run, tmp_path):
    texts = [text(i) for i in range(48)]
    student = saved(tmp_path / "s", 1, ["bad", "good"], texts)
    letters = saved(tmp_path / "t", 2, ["good", "bad"], ["abcdefghijklmnopqrstuvwxyz 0123456789"])
    arguments = files(tmp_path, ["good" if i % 4 in (0, 2) else "bad" for i in range(48)])
    models = [f"student.path={student}", f"teacher.path={letters}"]
    models += ["student=pretrained", "teacher=pretrained"]
    folder = run(*arguments, *models)
    found = report(folder)
    # The teacher's classes are in another order; its accuracy is that of a plain loop.
    model = AutoModelForSequenceClassification.from_pretrained(letters).eval()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(letters)
    with torch.no_grad():
        predicted = [
            model(**tokenizer(t, return_tensors="pt", truncation=True, max_length=32))
            .logits.argmax()
            .item()
            for t in texts
        ]
    right = sum(model.config.id2label[p] == ("good" if i % 4 in (0, 2) else "bad")
                for i, p in enumerate(predicted))  # fmt: skip
    assert 4 < sum(predicted) < 44
    assert found["teacher"]["metrics"]["accuracy"] == pytest.approx(right / 48)
    tokens = json.loads((folder / "student" / "tokenizer.json").read_text())["model"]["vocab"]
    assert "fine" in tokens


def test_evaluate_puts_the_classes_of_a_model_into_the_order_of_the_data(run, tmp_path):
    texts = [text(i) for i in range(48)]
    arguments = files(tmp_path, ["good" if i % 5 == 0 else "bad" for i in range(48)])
    found = {}
    for name, order in (("same", ["bad", "good"]), ("other", ["good", "bad"])):
        path = saved(tmp_path / name, 1, order, texts)
        folder = run("job=evaluate", f"job.path={path}", *arguments)
        found[name] = json.loads((folder / "evaluation.json").read_text())["accuracy"]
    # One network, whose outputs are called the other way round.
    assert found["same"] == pytest.approx(1 - found["other"])
    assert found["same"] != 0.5


def test_a_teacher_with_other_classes_is_refused(run, tmp_path, capsys):
    path = saved(tmp_path / "t", 1, ["cat", "dog"], [text(i) for i in range(48)])
    with pytest.raises(SystemExit):
        run(*files(tmp_path, ["good", "bad"] * 24), "teacher=pretrained", f"teacher.path={path}",
            *SMALL_STUDENT)  # fmt: skip
    shown = capsys.readouterr().err
    assert "cat" in shown and "good" in shown


def test_a_data_set_of_the_hub_and_a_limit_on_the_drop(run, tmp_path):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"sentence": [text(i) for i in range(48)], "label": [i % 4 // 2 for i in range(48)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "hub")
    limit = ["max_metric_drop=0.25", "metric_drop=absolute"]
    folder = run("data=hub", "data.path=hub", "data.text=sentence", *limit, *SMALL_STUDENT,
                 *SMALL_TEACHER, "baseline=false")  # fmt: skip
    assert "max_metric_drop: it drops" in (folder / "report.md").read_text()
    assert "(absolute; allowed 0.2500)" in (folder / "report.md").read_text()
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"}


def test_an_average_of_the_weights_is_what_is_kept(run, tmp_path):
    arguments = files(tmp_path, ["good" if i % 4 in (0, 2) else "bad" for i in range(48)])
    average = ["callbacks.weight_average.decay=0.5", "optimizer.lr=1e-2"]
    callbacks = "callbacks=[best_checkpoint,last_checkpoint,weight_average]"
    folder = run(*arguments, *average, callbacks, *SMALL_STUDENT, *SMALL_TEACHER)
    checkpoint = torch.load(next(folder.glob("checkpoints/best-*.ckpt")), weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "teacher" in name]
    assert "current_model_state" in checkpoint
    assert report(folder)["student"]["metrics"]["accuracy"] > 0


def test_training_stops_when_the_metric_gets_no_better(run, tmp_path):
    arguments = files(tmp_path, ["good" if i % 4 in (0, 2) else "bad" for i in range(48)])
    stop = ["callbacks=[best_checkpoint,last_checkpoint,early_stopping]"]
    stop += ["callbacks.early_stopping.patience=2", "trainer.max_epochs=30", "optimizer.lr=1e-9"]
    folder = run("job=finetune", *arguments, *stop, *SMALL_STUDENT)
    # The first epoch is the best at this rate, and two more bring nothing.
    assert json.loads((folder / "result.json").read_text())["epochs"] == 3


def test_adapters_are_in_the_checkpoint_and_not_in_what_is_exported(run, tmp_path):
    arguments = files(tmp_path, ["good" if i % 4 in (0, 2) else "bad" for i in range(48)])
    hint = ["criteria=[hard_label,soft_target,hint]", "teacher.model.hidden_size=32"]
    folder = run(*arguments, *SMALL_STUDENT, *SMALL_TEACHER, *hint, "baseline=false")
    saved_weights = torch.load(next(folder.glob("checkpoints/best-*.ckpt")), weights_only=True)
    names = list(saved_weights["state_dict"])
    assert any("adapters" in name for name in names)
    run("job=export", f"job.run={folder}", f"job.to={tmp_path / 'out'}")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    assert sorted(f"student.{name}" for name in exported) == sorted(
        name for name in names if name.startswith("student.")
    )


GOOD = ["good" if i % 4 in (0, 2) else "bad" for i in range(48)]


def weights(folder: Path) -> dict:
    return load_file(folder / "student" / "model.safetensors")


def test_a_student_cut_from_the_teacher_has_the_labels_of_the_data(run, tmp_path):
    data = files(tmp_path, GOOD)
    other = ["data.label_names=[good,bad]", "trainer.max_epochs=8", "optimizer.lr=5e-3"]
    made = run("job=finetune", *data, *SMALL_STUDENT, *other, "student.num_hidden_layers=2")
    assert report(made)["student"]["metrics"]["accuracy"] > 0.9
    teacher = ["teacher=pretrained", f"teacher.path={made / 'student'}"]
    cut = ["student=from_teacher", "student.layers=1", "optimizer.lr=1e-5", "baseline=false"]
    found = run(*data, *teacher, *cut)
    assert report(found)["teacher"]["metrics"]["accuracy"] > 0.9
    config = json.loads((found / "student" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    # Evaluated by its own configuration it is as good as the report says.
    again = run("job=evaluate", f"job.path={found}", *data)
    accuracy = json.loads((again / "evaluation.json").read_text())["accuracy"]
    assert accuracy == pytest.approx(report(found)["student"]["metrics"]["accuracy"])
    # A run brings its data along.
    alone = run("job=evaluate", f"job.path={found}")
    assert json.loads((alone / "evaluation.json").read_text())["accuracy"] == accuracy
    # It begins with the teacher's head, in the data's order.
    head = load_file(made / "student" / "model.safetensors")["classifier.weight"]
    assert torch.allclose(weights(found)["classifier.weight"], head[[1, 0]], atol=1e-3)


def test_resuming_a_run_that_has_ended_changes_nothing(run, tmp_path):
    data = files(tmp_path, GOOD)
    for callbacks in ("[last_checkpoint]", "[]"):
        folder = run(*data, *SMALL_STUDENT, *SMALL_TEACHER, f"callbacks={callbacks}")
        before = weights(folder), report(folder)["student"]["metrics"]
        resumed(run, folder)
        for name, value in weights(folder).items():
            assert torch.equal(value, before[0][name]), name
        assert report(folder)["student"]["metrics"] == before[1]


def resumed(run, folder: Path, *more: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", f"resume={folder}", *more])
        main()


def test_a_run_that_was_moved_goes_on_where_it_is(run, tmp_path):
    folder = run(*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER, "baseline=false")
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "result.json").unlink()
    (moved / "report.json").unlink()
    resumed(run, moved)
    assert (moved / "report.json").is_file() and not folder.exists()


def test_a_resumed_run_takes_no_overrides(run, tmp_path, capsys):
    folder = run(*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER, "baseline=false")
    with pytest.raises(SystemExit):
        resumed(run, folder, "optimizer.lr=9")
    assert "leave out optimizer.lr=9, or start a new run" in capsys.readouterr().err


def test_another_recipe_is_another_teacher(run, tmp_path, capsys, monkeypatch):
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER, "baseline=false"]
    run(*data)
    capsys.readouterr()
    run(*data)
    assert "Teacher: found in" in capsys.readouterr().out
    # Where it would be kept shows which teacher it is, and nothing needs to be trained for that.
    kept = []
    stop = lambda folder: (kept.append(folder), sys.exit(0))  # noqa: E731
    module = sys.modules["lightning_distill.run.trained_teacher"]
    monkeypatch.setattr(module, "_check_writable", stop)

    def key(*more):
        with pytest.raises(SystemExit):
            run(*data, f"teacher.folder={tmp_path / 'nothing'}", *more)
        return kept.pop()

    for same in (["trainer.max_epochs=1"], ["optimizer.lr=1e-3"], ["data.labelled_rows=20"]):
        assert key(*same) == key(), same
    others = [
        ["optimizer.weight_decay=0.5"],
        ["scheduler=cosine"],
        ["+trainer.limit_train_batches=1"],
        ["teacher.model.hidden_size=32"],
        ["teacher.max_epochs=1"],
        ["seed=1"],
        ["data.label_names=[good,bad]"],
        ["data.length_bucketing=false"],
        ["data.seed=99"],
    ]
    keys = {key(), *(key(*other) for other in others)}
    assert len(keys) == 1 + len(others)


@pytest.mark.parametrize("library", ["torch", "transformers", "lightning", "tokenizers"])
def test_another_version_of_a_library_is_another_teacher(run, tmp_path, monkeypatch, library):
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER]
    # The key shows in where it would be kept, and nothing needs to be trained for that.
    keys = []
    module = sys.modules["lightning_distill.run.trained_teacher"]
    stop = lambda kept: (keys.append(kept), sys.exit(0))  # noqa: E731
    monkeypatch.setattr(module, "_check_writable", stop)
    for changed in ("1", "2"):
        versions = {library: changed}
        monkeypatch.setattr(module, "version", lambda name, known=versions: known.get(name, "1"))
        with pytest.raises(SystemExit):
            run(*data)
    assert keys[0].parent == keys[1].parent and keys[0] != keys[1]


@pytest.mark.parametrize("monitor", ["soft_target", "agreement", "loss"])
def test_what_only_the_student_has_can_be_monitored(run, tmp_path, monitor):
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER]
    folder = run(*data, f"monitor=val/{monitor}")
    found = report(folder)
    # Losses of different terms are not compared, nor agreement.
    assert found["metric"] == "accuracy" and found["higher_is_better"]
    assert found["baseline"] is not None and found["teacher"] is not None


def test_a_row_too_long_for_a_model_is_found_before_training(run, tmp_path, capsys):
    data = files(tmp_path, GOOD)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "fine " * 90, "label": "good"}) + "\n")
    small = ["student.max_position_embeddings=40", "teacher.model.max_position_embeddings=40"]
    with pytest.raises(SystemExit):
        run(*data, *SMALL_STUDENT, *SMALL_TEACHER, *small)
    shown = capsys.readouterr()
    assert "The teacher reads at most 40 tokens, but the data has rows of 92. Set" in shown.err
    roberta = ["student.model_type=roberta", "student.max_position_embeddings=92"]
    with pytest.raises(SystemExit):
        run("job=finetune", *data, *SMALL_STUDENT, *roberta)
    assert "The student reads at most 91 tokens, but the data has rows of 92" in (
        capsys.readouterr().err
    )


def test_few_steps_and_less_precision(run, tmp_path):
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER, "baseline=false"]
    run(*data, "trainer.max_steps=10", "trainer.max_epochs=5", "trainer.precision=bf16-mixed")
    run(*data, "scheduler=cosine", "trainer.max_steps=1")
    run(*data, "+trainer.fast_dev_run=true")


def test_a_cheaper_teacher_is_the_same_one_and_what_costs_figures_is_switched_on(
    run, tmp_path, monkeypatch, capsys
):
    compiled = []
    monkeypatch.setattr("lightning_distill.run.stage.compile_in_place", compiled.append)
    given = [*files(tmp_path, ["good", "bad"] * 24), *SMALL_TEACHER, *SMALL_STUDENT]
    given += ["trainer.max_epochs=1", "teacher.max_epochs=1", "baseline=false"]
    plain = run(*given)
    assert not compiled and "found in" not in capsys.readouterr().out
    cheap = ["teacher.dtype=bfloat16", "compile=true", "data.tokens_per_batch=64", "data.views=2"]
    masked = "data.augmentation={_target_: lightning_distill.data.TokenMasking, probability: 0.3}"
    other = run(*given, *cheap, masked)
    assert "found in" in (other / "log.txt").read_text()
    assert len(compiled) == 2
    assert {p.dtype for p in compiled[1].parameters()} == {torch.bfloat16}
    sizes = [report(folder)["teacher"]["size_mb"] for folder in (plain, other)]
    assert sizes[1] < 0.6 * sizes[0]


def test_a_student_with_adapters_is_saved_without_and_exported_from_its_checkpoint(run, tmp_path):
    peft = pytest.importorskip("peft", reason="pip install 'lightning-distill[lora]'")
    given = [*files(tmp_path, ["good", "bad"] * 24), *SMALL_TEACHER, "student=lora"]
    more = ["student.of.layers=1", "student.rank=2", "gradient_checkpointing=true"]
    folder = run(*given, *more, "baseline=false", "optimizer.lr=0.01")
    saved = AutoModelForSequenceClassification.from_pretrained(folder / "student")
    config = peft.PeftConfig.from_pretrained(str(folder / "student" / "adapter"))
    assert config.r == 2 and not any("lora" in name for name in saved.state_dict())
    run("job=export", f"job.run={folder}", f"job.to={tmp_path / 'out'}")
    for name, value in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(value, saved.state_dict()[name])
    # A pretrained one, whose tokenizer the data then has.
    on = [
        *files(tmp_path, ["good", "bad"] * 24),
        "student=lora",
        f"student.path={folder / 'student'}",
    ]
    other = run("job=finetune", *on, "student.rank=1", "student.target_modules=[query]")
    alone = load_file(other / "student" / "adapter" / "adapter_model.safetensors")
    assert len(alone) == 4 and {min(v.shape) for n, v in alone.items() if "lora" in n} == {1}


def test_a_run_that_has_not_ended_is_no_model_yet(run, tmp_path, capsys):
    folder = run(*files(tmp_path, GOOD), *SMALL_STUDENT, *SMALL_TEACHER, "baseline=false")
    (folder / "report.json").unlink()
    with pytest.raises(SystemExit):
        run("job=evaluate", f"job.path={folder}", *files(tmp_path, GOOD))
    assert f"The run {folder} has not ended: go on with resume=" in capsys.readouterr().err


def test_a_stopped_run_says_how_to_go_on(run, tmp_path, capsys):
    (tmp_path / "stopping.py").write_text(
        "import lightning as L\n\n\n"
        "class Stop(L.Callback):\n"
        "    def on_train_epoch_start(self, trainer, pl_module):\n"
        "        raise KeyboardInterrupt\n"
    )
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT, "+callbacks.stop._target_=stopping.Stop"]
    with pytest.raises(SystemExit) as exit_:
        run("job=finetune", *data)
    assert exit_.value.code == 130
    assert "Stopped. Go on with: lightning-distill resume=" in capsys.readouterr().out


def test_without_labels_there_is_no_student_alone(run, tmp_path, capsys):
    path = saved(tmp_path / "t", 1, ["bad", "good"], [text(i) for i in range(48)])
    data = files(tmp_path, GOOD)
    lines = "".join(json.dumps({"text": text(i)}) + "\n" for i in range(48))
    (tmp_path / "train.jsonl").write_text(lines)
    folder = run(*data, "teacher=pretrained", f"teacher.path={path}", *SMALL_STUDENT)
    assert report(folder)["baseline"] is None and not (folder / "baseline").exists()
    sentence = "not trained, for no training row has a label"
    assert f"Student alone: {sentence}" in capsys.readouterr().out
    assert f"- student alone: {sentence}" in (folder / "report.md").read_text()


def test_without_any_label_the_agreement_with_the_teacher_is_measured(run, tmp_path, capsys):
    path = saved(tmp_path / "t", 1, ["bad", "good"], [text(i) for i in range(48)])
    lines = "".join(json.dumps({"text": text(i)}) + "\n" for i in range(48))
    (tmp_path / "train.jsonl").write_text(lines)
    teacher = ["teacher=pretrained", f"teacher.path={path}"]
    data = ["data=text_files", "data.train=train.jsonl", "data.test=train.jsonl"]
    folder = run(*data, *teacher, *SMALL_STUDENT)
    said = capsys.readouterr().out
    assert "no row of the data has a label (data.label=label)" in said
    assert "Metrics: no row has a label, so accuracy is not measured" in said
    found = report(folder)
    assert found["metric"] == "agreement" and set(found["student"]["metrics"]) == {"agreement"}
    assert 0 < found["student"]["metrics"]["agreement"] <= 1
    assert found["baseline"] is None and found["drop"] is None
    assert found["teacher"]["parameters"] > 0 and found["teacher"]["metrics"] == {}
    assert "accuracy" not in (folder / "report.md").read_text()
    assert "val/agreement" in (folder / "metrics.csv").read_text()
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["label2id"] == {"bad": 0, "good": 1}
    # Its answers can be kept and read as well.
    cache = run(*data, *teacher, *SMALL_STUDENT, "job=cache", "data.label=null")
    again = run(*data, "teacher=cached", f"teacher.folder={cache / 'answers'}", *SMALL_STUDENT)
    assert report(again)["student"]["metrics"] == found["student"]["metrics"]
    for arguments, words in (
        (["job=finetune", *SMALL_STUDENT], "No row of the data has a label, and job=finetune can"),
        (["job=evaluate", f"job.path={folder}"], "No row of the data has a label, and job=evalu"),
        ([*SMALL_TEACHER], "No training row has a label, so no teacher can be trained"),
        (["~teacher", "criteria=[hard_label]", *SMALL_STUDENT], "No training row has a label, and"),
    ):
        with pytest.raises(SystemExit):
            run(*data, *arguments)
        assert words in capsys.readouterr().err


def test_a_training_without_a_step_is_an_error(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lightning_distill.run.stage.fit", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        run("job=finetune", *files(tmp_path, GOOD), *SMALL_STUDENT)
    assert "Training has ended without a step" in capsys.readouterr().err


def test_groups_that_are_left_out_are_done_without(run, tmp_path, capsys):
    data = [*files(tmp_path, GOOD), *SMALL_STUDENT]
    folder = run(*data, "~teacher", "criteria=[hard_label]", "~scheduler", "logger=[]")
    assert report(folder)["teacher"] is None
    assert "agreement" not in (folder / "report.md").read_text()
    # Neither a logger's file nor what is drawn from it, and nobody says so.
    assert not (folder / "curves.png").exists() and not (folder / "metrics.csv").exists()
    assert "curves.png" not in (folder / "report.md").read_text()
    assert re.search(r"Written: \S+: student/, report.html, report.md\n", capsys.readouterr().out)


def test_a_student_of_ones_own_class_is_trained_and_not_exported(run, tmp_path, capsys):
    (tmp_path / "counting.py").write_text(
        "import torch\n\n\n"
        "class Counting(torch.nn.Module):\n"
        "    def __init__(self, num_labels, vocab_size):\n"
        "        super().__init__()\n"
        "        self.words = torch.nn.EmbeddingBag(vocab_size, num_labels)\n\n"
        "    def forward(self, input_ids, attention_mask=None):\n"
        "        return {'logits': self.words(input_ids)}\n"
    )
    student = ["~student", "+student._target_=counting.Counting"]
    folder = run("job=finetune", *files(tmp_path, GOOD), *student, "optimizer.lr=1e-3")
    # No teacher, which no job that reads the run could find, and a loss that is the loss.
    settings = OmegaConf.load(folder / "config.yaml")
    assert settings.teacher is None and settings.trainer.max_epochs == 2
    with (folder / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert logged and all(row["train/loss"] == row["train/hard_label"] for row in logged)
    words = "holds the weights of a model that is none of transformers'"
    for job in ("job=export job.run", "job=evaluate job.path"):
        with pytest.raises(SystemExit):
            run(*files(tmp_path, GOOD), *f"{job}={folder}".split())
        assert words in capsys.readouterr().err


def test_each_srun_of_an_allocation_is_a_run(monkeypatch):
    from lightning_distill.main import run_dir

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("LIGHTNING_DISTILL_RUN_ID", raising=False)
    for name, value in (("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "2"), ("SLURM_STEP_ID", "0")):
        monkeypatch.setenv(name, value)
    first = run_dir(None, "distill", _root_=OmegaConf.create())
    assert run_dir(None, "distill", _root_=OmegaConf.create()) == first
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert run_dir(None, "distill", _root_=OmegaConf.create()) != first


def test_a_callable_takes_out_what_is_compared(run, tmp_path):
    (tmp_path / "taking.py").write_text(
        "class First:\n    def __call__(self, output):\n        return output[0]\n"
    )
    side = "[bert.encoder.layer.0.attention,{_target_: taking.First}]"
    mapping = f"criteria.intermediate_layers.layer_mappings=[[{side},{side}]]"
    arguments = [*SMALL_STUDENT, *SMALL_TEACHER, "criteria=[hard_label,intermediate_layers]"]
    folder = run(*files(tmp_path, GOOD), *arguments, mapping, "baseline=false")
    assert "train/intermediate_layers" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_metrics_of_another_task_are_refused(run, tmp_path, capsys):
    data = files(tmp_path, [i / 2 for i in range(48)])
    with pytest.raises(SystemExit):
        run(*data, "data.task=regression", "metrics=[accuracy]", *SMALL_STUDENT)
    words = "metrics.accuracy (MulticlassAccuracy) measures data.task=classification, but the data "
    assert f"{words}has task=regression. Choose what fits, as in metrics=[pearson]" in " ".join(
        capsys.readouterr().err.split()
    )

"""Faults of every kind are planted, and `job=check` names each of them."""

import importlib
import json
from pathlib import Path

import jaxtyping
import pytest
from planted import all_in_one, Fault, RUNS, without, write_all
from texts_on_disk import call_in

pytestmark = pytest.mark.slow

TERM = "criteria.soft_target."
FAULTS = [
    # The teacher.
    Fault("teacher untrained", ("teacher.path=untrained",), "teacher.chance"),
    Fault("labels in another order", ("teacher.path=swapped",), "teacher.chance"),
    Fault("teacher not finite", ("teacher.path=undefined",), "on the first batch"),
    Fault("teacher of other labels", ("teacher.path=animals",), "labels (bad, good) are not"),
    Fault("teacher with another head", ("teacher.path=three",), "the teacher 3"),
    Fault("teacher of fewer tokens", ("teacher.path=few_words",), "token"),
    Fault("teacher not there", ("teacher.path=nowhere",), "neither a folder here nor"),
    Fault("teacher of another tokenizer",
          ("data.tokenizer=reader", "data.teacher_tokenizer=reader"), "tokens.ids"),
    Fault("student equals teacher", ("student.layers=2",), "student.is_teacher", "half"),
    Fault("models exchanged", ("student.hidden_size=64", "student.num_hidden_layers=2"), "sizes"),
    Fault("no teacher for a term", ("criteria=[hard_label,soft_target]",), "there is none",
          "alone"),
    # The rows.
    Fault("labels constant", ("data.train=constant.csv", "data.label_names=[bad,good]"),
          "labels.constant"),
    Fault("validation rows are training rows", ("data.validation=train.csv",), "rows.in_both"),
    Fault("some rows in both", ("data.validation=leaking.csv",), "rows.in_both"),
    Fault("rows with two labels", ("data.train=unlike.csv",), "rows.contradict"),
    Fault("rows repeated", ("data.train=repeated.csv",), "rows.repeated"),
    Fault("a class without validation", ("data.validation=one_kind.csv",),
          "labels.not_in_validation"),
    Fault("a class without rows", ("data.label_names=[bad,good,so]",), "labels.not_in_training",
          "alone"),
    Fault("a class that is nearly all", ("data.train=rare.csv",), "labels.frequent"),
    Fault("most rows unlabelled", ("data.train=unlabelled.csv", "criteria=[hard_label]"),
          "learnt.share"),
    Fault("no row labelled", ("data.train=nothing.csv", "criteria=[hard_label]"),
          "No training row has a label"),
    Fault("most rows cut", ("data.max_length=5",), "cuts 320 of 320"),
    Fault("empty texts", ("data.train=empty.csv",), "texts of the train data are empty"),
    Fault("texts of another language", ("data.train=foreign.csv",), "tokens.unknown"),
    Fault("no rows", ("data.train=header.csv",), "has no rows"),
    Fault("another column", ("data.label=sort",), "sort"),
    Fault("rows too long", ("data.max_length=64", "student.max_position_embeddings=8"),
          "reads at most 8 tokens"),
    # The terms.
    Fault("temperature that flattens", (f"{TERM}criterion.temperature=1000",), "term.temperature"),
    Fault("temperature 0", (f"{TERM}criterion.temperature=0",), "temperature must be positive"),
    Fault("weight that moves nothing", (f"{TERM}weight=1e-7",), "term.value"),
    Fault("term without gradient", (f"{TERM}inputs.student=teacher.logits",), "no gradient"),
    Fault("layer not there", ("criteria=[hard_label,hint]",
          "criteria.hint.inputs.student='student.layer:bert.nothing'"), "bert.nothing"),
    Fault("nothing to learn", ("criteria=[]",), "`criteria` is empty"),
    Fault("metric of another task", ("metrics=[spearman]",), "spearman"),
    # The steps.
    Fault("learning rate 0", ("optimizer.lr=0",), "optimizer.lr must be positive"),
    Fault("learning rate absurd", ("optimizer.lr=2",), "step.too_far"),
    Fault("learning rate too small", ("optimizer.lr=1e-12",), "step.nowhere"),
    Fault("batch larger than data", ("data.train=few.csv", "data.batch_size=64"),
          "schedule.one_step"),
    Fault("schedule longer than training", ("+scheduler.total_steps=5000",), "schedule.longer"),
    Fault("schedule shorter than training", ("+scheduler.total_steps=20",), "schedule.ends"),
    Fault("most rows never seen", ("trainer.max_epochs=-1", "trainer.max_steps=6"),
          "schedule.few_rows"),
    Fault("precision not there", ("trainer.precision=fp8",), "trainer.precision"),
    Fault("width and heads", ("student.hidden_size=9",), "must be a multiple of"),
    # Conversations.
    Fault("template of another model", ("data.tokenizer=speaker", "teacher.path=stranger"),
          "prompt.template", "chats"),
    Fault("answers without an end", ("teacher.path=endless",), "prompt.end", "chats"),
    Fault("answers cut off", ("data.max_length=12",),
          "Nothing of the train data is to be predicted", "chats"),
    Fault("no template", ("data.tokenizer=teacher",), "has no end token", "chats"),
    # Pictures.
    Fault("normalisation of another model",
          ("data.teacher_image_processor={height: 8, width: 8, mean: [0, 0, 0], std: [1, 1, 1]}",),
          "pictures.normalisation", "pictures"),
    Fault("pictures of another size", ("data.size=16", "++data.teacher_image_processor="
          "{height: 16, width: 16}"), "16", "pictures"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("planted")
    write_all(path)
    all_in_one(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def unchecked():
    """Without the types that tests check at every call, which are the longer part of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        yield


def checked(folder: Path, name: str, *typed: str) -> tuple[int, dict]:
    """The exit status of `job=check`, and what it has written."""
    run = folder / name.replace(" ", "_")
    known = {word.partition("=")[0].lstrip("+"): word for word in typed}
    try:
        call_in(folder, "job=check", *known.values(), f"hydra.run.dir={run}")
    except SystemExit as stopped:
        status = stopped.code
    else:
        status = 0
    file = run / "check.json"
    return status, json.loads(file.read_text()) if file.is_file() else {"findings": []}


@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_found_in_a_run_that_is_right(folder, run):
    status, found = checked(folder, f"clean {run}", *RUNS[run])
    bad = [f for f in found["findings"] if f["level"] not in ("ok", "unknown")]
    assert (status, bad) == (0, [])


def test_nothing_is_found_where_the_answers_are_on_disk(folder):
    words = RUNS["texts"]
    call_in(folder, "job=cache", "job.folder=kept", *without(words, "job."), "hydra.run.dir=cache")
    words = (*without(words, "teacher"), "teacher=cached", "teacher.folder=kept")
    status, found = checked(folder, "cached", *words)
    names = {f["name"]: f["level"] for f in found["findings"]}
    assert (status, names["teacher.chance"]) == (0, "ok")
    assert not {"warning", "wrong"} & {*names.values()}


def test_memory_is_told_before_a_model_is_loaded(folder, monkeypatch, capsys):
    def load(*_):
        raise AssertionError("a teacher is loaded")

    words = [word for word in RUNS["texts"] if word != "job.memory=false"]
    monkeypatch.setattr("lightning_distill.run.distillation.build_teacher", load)
    # The package has the function under the module's name.
    module = importlib.import_module("lightning_distill.jobs.check")
    monkeypatch.setattr(module, "memory_of", lambda cfg: 1000)
    status, found = checked(folder, "too large", *words)
    said = capsys.readouterr().err
    assert status == 1 and "The training takes too much memory" in said
    assert "this machine has 1.0 kB. Lower data.batch_size" in said
    assert [f["name"] for f in found["findings"]][-1] == "refused"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named(folder, capsys, fault):
    status, found = checked(folder, fault.name, *RUNS[fault.run], *fault.typed)
    bad = [f for f in found["findings"] if f["level"] not in ("ok", "unknown")]
    said = capsys.readouterr().err + "".join(f["found"] for f in bad)
    names = [f["name"] for f in bad]
    assert fault.finds in names or fault.finds in said, (names, said)
    # Only what makes a training senseless stops a script.
    assert status == (1 if any(f["level"] == "wrong" for f in bad) or not found["findings"] else 0)


def test_thirty_faults_are_planted_at_least(capsys):
    # Each has a test above, which may run in another process than this one.
    with capsys.disabled():
        print(f"\n{len(FAULTS)} planted faults, each named in a test of its own")
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 30

"""Whole runs of causal language models through the command."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedModel

from lightning_distill import DistillationModule
from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.main import main

pytestmark = pytest.mark.slow

WORDS = ["the", "cat", "dog", "sat", "on", "mat", "red", "blue", "runs", "over", "hill", "rain"]
SMALL = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "+trainer.limit_train_batches=3",
    "+trainer.limit_val_batches=2",
    "+trainer.limit_test_batches=2",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    "metrics=[perplexity,bits_per_byte,agreement,forward_kl]",
]
STUDENT = [
    "student=causal_lm",
    "student.hidden_size=16",
    "student.head_dim=4",
    "student.num_hidden_layers=1",
    "student.intermediate_size=16",
]
TEXTS = ["data.train=texts", "data.validation=dev.txt", "data.max_length=32", "data.batch_size=4"]
CHATS = ["data=chat_files", "data.train=chats.jsonl", "data.validation=chats_dev.jsonl"]
CHATS += ["data.chat_template=chat.jinja", "data.max_length=64", "data.batch_size=4"]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def written(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def saved(folder: Path, config, tokenizer) -> str:
    torch.manual_seed(len(folder.name))
    config.vocab_size = len(tokenizer)
    config.bos_token_id = config.eos_token_id = tokenizer.eos_token_id
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder.name


def gpt2(**options) -> GPT2Config:
    return GPT2Config(**{"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 64, **options})


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Texts, chats, and models: `teacher`, its like, and one with another tokenizer."""
    folder = tmp_path_factory.mktemp("language_models")
    (folder / "texts").mkdir()
    for i in range(16):
        lines = "\n".join(written(100 * i + n, 12) for n in range(4))
        (folder / "texts" / f"{i}.txt").write_text(lines)
    (folder / "dev.txt").write_text("\n".join(written(i, 12) for i in range(900, 920)))
    rows = [
        {"messages": [{"role": "user", "content": written(i, 5)},
                      {"role": "assistant", "content": written(i + 50, 8)}]}
        for i in range(24)
    ]  # fmt: skip
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [{"prompt": written(i, 5), "completion": written(i + 9, 8)} for i in range(200, 208)]
    (folder / "chats_dev.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (folder / "chat.jinja").write_text(TEMPLATE)
    texts = [path.read_text() for path in sorted((folder / "texts").iterdir())]
    tokenizer = train_byte_pairs(texts, 300, 64)
    other = train_byte_pairs(["0123456789 programming languages are wonderful " * 9], 300, 64)
    assert len(other) != len(tokenizer) or other.get_vocab() != tokenizer.get_vocab()
    saved(folder / "teacher", gpt2(), tokenizer)
    saved(folder / "student", gpt2(n_layer=1), tokenizer)
    saved(folder / "foreign", gpt2(n_layer=1), other)
    return folder


@pytest.fixture
def run(work, tmp_path, monkeypatch, unchecked_types):
    def run_(*typed: str, data=TEXTS, student=STUDENT, teacher="teacher") -> Path:
        monkeypatch.chdir(work)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        path = [] if teacher is None else [f"teacher.path={teacher}"]
        arguments = ["experiment=lm", *data, *student, *path, *SMALL, *typed]
        # What is typed last counts.
        chosen = {a.partition("=")[0]: a for a in arguments}
        monkeypatch.setattr(sys, "argv", ["x", *chosen.values(), f"hydra.run.dir={folder}"])
        main()
        return folder

    return run_


@pytest.fixture
def refused(run, monkeypatch, capsys):
    """Runs a command that must end with one message, before a step of training; returns it."""
    steps = []
    monkeypatch.setattr(DistillationModule, "training_step", lambda *_: steps.append(1))

    def refused_(*typed: str, **parts) -> str:
        with pytest.raises(SystemExit):
            run(*typed, **parts)
        shown = capsys.readouterr().err
        assert "Traceback" not in shown and not steps
        return re.sub(r"\s+", " ", shown)

    return refused_


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def logged(folder: Path) -> str:
    return (folder / "metrics.csv").read_text().splitlines()[0]


def test_a_teacher_is_trained_and_distilled(run, capsys):
    small = ["teacher=trained_causal_lm", "teacher.max_epochs=1", "teacher.model.hidden_size=16"]
    small += ["teacher.model.head_dim=4", "teacher.model.intermediate_size=16"]
    folder = run(*small, "data.vocab_size=280", teacher=None)
    found = report(folder)
    assert set(found["teacher"]["metrics"]) == {"perplexity", "bits_per_byte"}
    assert found["baseline"]["metrics"]["forward_kl"] > 0
    assert found["samples"][0]["continuations"].keys() == {
        "teacher", "student alone", "student distilled"}  # fmt: skip
    assert "## Samples" in (folder / "report.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(folder / "student")
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape == (*ids.shape, 280)
    assert "…" not in capsys.readouterr().out


STUDENTS = {
    "from_teacher": ["student=from_teacher", "student.layers=1"],
    "pretrained": ["student=pretrained", "student.path=student"],
    "lora": ["student=lora", "student.path=student", "student.rank=2"],
    "lora of a part": ["student=lora", "student.of.layers=1", "student.rank=2"],
}


@pytest.mark.parametrize("name", STUDENTS)
def test_students_of_every_kind(run, name):
    folder = run("baseline=false", student=STUDENTS[name])
    assert AutoModelForCausalLM.from_pretrained(folder / "student").config.vocab_size
    assert "train/fused_linear_divergence" in logged(folder)


@pytest.mark.parametrize("student", ["pretrained", "causal_lm"])
def test_a_model_learns_of_labels_and_asks_for_no_teacher(run, student):
    given = STUDENT if student == "causal_lm" else STUDENTS[student]
    folder = run("job=finetune", student=given, teacher=None)
    assert set(report(folder)["student"]["metrics"]) == {"perplexity", "bits_per_byte"}
    again = run("job=evaluate", f"job.path={folder}", teacher=None, student=given)
    measured = json.loads((again / "evaluation.json").read_text())
    assert measured["perplexity"] == pytest.approx(
        report(folder)["student"]["metrics"]["perplexity"]
    )


DATA = {
    "chats": [CHATS, []],
    "chats apart": [CHATS, ["data.packing=false"]],
    "texts apart": [TEXTS, ["data.packing=false"]],
    "stream": [TEXTS, ["data.streaming=true", "data.shuffle_rows=20"]],
    "stream of chats": [CHATS, ["data.streaming=true", "trainer.max_steps=2"]],
}


@pytest.mark.parametrize("name", DATA)
def test_data_of_every_kind(run, name):
    data, more = DATA[name]
    folder = run(*more, data=data)
    found = report(folder)
    assert np.isfinite(list(found["student"]["metrics"].values())).all()
    assert found["baseline"] is not None
    results = [json.loads((folder / n / "result.json").read_text()) for n in ("", "baseline")]
    assert results[0]["steps"] == results[1]["steps"] == (2 if "trainer.max_steps=2" in more else 3)


def test_a_stream_without_an_end_is_refused_by_what_needs_one(refused):
    SMALL.remove(limit := "+trainer.limit_train_batches=3")
    try:
        shown = refused("data.streaming=true")
    finally:
        SMALL.append(limit)
    assert "nobody knows how long that is: this data is a stream" in shown
    assert "Set trainer.max_steps=N" in shown and "scheduler=constant" in shown


def test_answers_on_disk_teach_as_the_teacher_does(run):
    live = run("baseline=false")
    cache = run("job=cache", "job.hidden_dtype=float32") / "answers"
    heads = {path.name for path in cache.iterdir()}
    assert "heads.safetensors" in heads
    kept = ["teacher=cached", f"teacher.folder={cache}", "baseline=false"]
    from_disk = run(*kept, teacher=None)
    for name, value in report(live)["student"]["metrics"].items():
        assert report(from_disk)["student"]["metrics"][name] == pytest.approx(value, rel=1e-5)
    run("job=cache", "job.mode=verify", f"job.folder={cache}")
    caching = run("teacher=caching", "baseline=false")
    assert (caching / "answers" / "manifest.json").is_file()


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
def test_few_numbers_of_each_answer_teach_too(run, kind):
    criteria = [f"criteria=[fused_linear_{kind}]", "baseline=false"]
    cache = run("job=cache", f"job.logits={kind}", "job.k=8", "job.draws=8", *criteria) / "answers"
    folder = run("teacher=cached", f"teacher.folder={cache}", *criteria, teacher=None)
    assert np.isfinite(report(folder)["student"]["metrics"]["perplexity"])
    if kind == "top_k":
        assert "retained_mass" in logged(folder)


def test_the_student_writes_its_own_texts(run, tmp_path):
    mine = ["module=on_policy", "module.prompt_tokens=8", "module.max_new_tokens=4"]
    mine += ["trainer.accumulate_grad_batches=2", "+trainer.limit_train_batches=4"]
    mine += ["data.packing=false", "baseline=false"]
    for data in (CHATS, TEXTS):
        folder = run(*mine, data=data)
        assert json.loads((folder / "result.json").read_text())["steps"] == 2
        said = (folder / "log.txt").read_text()
        assert "Learnt from: fused_linear_divergence" in said and "left out" not in said
    with pytest.raises(SystemExit):
        # Its teacher was never trained.
        run("job=check", *mine, data=CHATS)
    found = json.loads((tmp_path / "run2" / "check.json").read_text())["findings"]
    assert [f["name"] for f in found if f["level"] == "wrong"] == ["teacher.chance"]
    assert any("learns from 216 of 720 tokens" in f["found"] for f in found)


CRITERIA = {
    "logits": ["criteria=[hard_label,soft_target]"],
    "layers": [
        "criteria=[fused_linear_divergence,hint]",
        "criteria.hint.inputs.student='student.layer:model.layers.0'",
        "criteria.hint.inputs.teacher='teacher.layer:transformer.h.1'",
    ],
    "plain": ["+criteria.fused_linear_divergence.criterion.fused=false"],
    "reverse": [
        "criteria.fused_linear_divergence.criterion.criterion._target_="
        "lightning_distill.criteria.ReverseKL"
    ],
    "checkpointing": ["gradient_checkpointing=true"],
}


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_of_every_kind(run, name):
    typed = [a.removeprefix("+") for a in CRITERIA[name]]
    folder = run("baseline=false", *typed)
    assert np.isfinite(report(folder)["student"]["metrics"]["perplexity"])


@pytest.mark.parametrize("criterion", ["alm", "uld"])
def test_models_with_different_tokenizers(run, criterion, capsys):
    folder = run(f"criteria=[{criterion}]", student=STUDENTS["pretrained"], teacher="foreign")
    assert "Metrics: agreement, forward_kl left out" in (folder / "log.txt").read_text()
    assert set(report(folder)["student"]["metrics"]) == {"perplexity", "bits_per_byte"}
    assert "bits_per_byte" in report(folder)["teacher"]["metrics"]
    # Measured again on the same rows, those that both can read; the teacher may be gone.
    again = folder.parent / "again"
    with pytest.MonkeyPatch.context() as patch:
        typed = ["job=evaluate", f"job.path={folder}", "+trainer.limit_test_batches=2"]
        patch.setattr(sys, "argv", ["x", *typed, f"hydra.run.dir={again}"])
        main()
    measured = json.loads((again / "evaluation.json").read_text())
    assert measured["perplexity"] == report(folder)["student"]["metrics"]["perplexity"]


def test_models_with_one_tokenizer_are_said_to_share_it(run):
    folder = run("baseline=false", student=STUDENTS["pretrained"])
    assert "token ids mean the same to student and teacher" in (folder / "log.txt").read_text()
    assert not (folder / "teacher_tokenizer").exists()


def test_a_run_that_was_cut_off_goes_on(run):
    folder = run("baseline=false")
    for name in ("report.json", "result.json"):
        (folder / name).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", f"resume={folder}"])
        main()
    assert report(folder)["student"]["metrics"]["perplexity"] > 0
    out = folder.parent / "exported"
    run("job=export", f"job.run={folder}", f"job.to={out}", teacher=None)
    AutoModelForCausalLM.from_pretrained(out)


def test_inspect_names_the_heads(run, capsys):
    run("job=inspect")
    assert "lm_head" in capsys.readouterr().out


BAD = {
    "its head": (["student=from_config"], "Its head is 'cls.predictions.decoder'."),
    "no criterion": (["criteria=[]"], "`criteria` is empty"),
    "accuracy": (["metrics=[accuracy]"], "perplexity"),
    "too long": (["data.max_length=100"], "reads at most 64 tokens"),
    "packed": (["module=on_policy"], "data.packing=false"),
    "no file": (["data.train=nowhere.txt"], "nowhere.txt (data.train)"),
    "no such layer": (
        ["criteria.fused_linear_divergence.inputs.student='student.layer_input:nope'"],
        "has no submodule 'nope'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_typed_wrong_is_one_message(refused, name):
    typed, words = BAD[name]
    student = [] if name == "its head" else STUDENT
    assert words in refused(*typed, student=student)


def test_a_vocabulary_that_is_too_small(refused):
    small = ["teacher=trained_causal_lm", "data.vocab_size=100"]
    assert "vocab_size" in refused(*small, teacher=None)


def test_a_chat_without_a_template(refused):
    data = [a for a in CHATS if "template" not in a]
    assert "data.chat_template" in refused(data=data)


def test_ids_that_mean_other_tokens(refused):
    shown = refused(student=STUDENTS["pretrained"], teacher="foreign")
    assert "Term 'fused_linear_divergence' compares logits by their ids" in shown


def test_the_head_of_another_architecture(refused):
    head = "criteria.fused_linear_divergence.inputs.student_head='student.head:embed_out'"
    shown = refused(head)
    assert "has no submodule 'embed_out'. Its head is 'lm_head'." in shown


def test_settings_of_a_criterion_that_is_not_chosen(refused):
    shown = refused("criteria=[alm]", "criteria.fused_linear_divergence.criterion.label_weight=1")
    assert "criteria.fused_linear_divergence is set, but" in shown


def test_packed_rows_and_flash_attention(refused, monkeypatch):
    # As if the kernel were there.
    monkeypatch.setattr(
        PreTrainedModel, "_check_and_adjust_attn_implementation", lambda self, name, **_: name
    )
    shown = refused("student.attn_implementation=flash_attention_2")
    assert "The student was loaded with attn_implementation='flash_attention_2'" in shown
    assert "data.packing=false" in shown


def test_the_default_student_becomes_a_decoder(run):
    plain = ["criteria=[hard_label,soft_target]", "baseline=false"]
    folder = run(*plain, student=["student=from_config", "student.hidden_size=16"])
    config = json.loads((folder / "student" / "config.json").read_text())
    assert config["is_decoder"] and config["model_type"] == "bert"


def test_a_vocabulary_of_equal_size_is_not_the_same(work, refused):
    tokenizer = AutoTokenizer.from_pretrained(work / "teacher")
    # Two words of the vocabulary change places.
    text = tokenizer.backend_tokenizer.to_str()
    state = json.loads(text)
    vocabulary = state["model"]["vocab"]
    one, two = [word for word in vocabulary if len(word) == 1][:2]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    saved(work / "exchanged", gpt2(), tokenizer)
    (work / "exchanged" / "tokenizer.json").write_text(json.dumps(state))
    shown = refused(student=STUDENTS["pretrained"], teacher="exchanged")
    assert "Term 'fused_linear_divergence' compares logits by their ids" in shown

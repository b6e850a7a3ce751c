"""A student that knows fewer tokens than its teacher, by the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import kill_at, run_whole, WITH_STOP, write_stop
from texts_on_disk import call_in, losses, write_csv
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.data.text.word_pieces import train_word_pieces

pytestmark = pytest.mark.slow

OPTIONS = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
OPTIONS += ["callbacks=[best_checkpoint,finite_loss]"]
DATA = ["data=text_files", "data.train=tr.csv", "data.test=te.csv", "data.label=kind"]
DATA += ["data.max_length=16", "data.batch_size=32"]
TEACHER = ["teacher=pretrained", "teacher.path=teacher"]
FEWER = ["student=pruned", "student.vocabulary=60", "baseline=false"]
WORDS = ["the", "old", "cat", "dog", "sat", "on", "mat", "red", "blue", "runs", "over", "hill"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 24, "max_position_embeddings": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Rows with labels, lines of text, and trained models with tokenizers of many more words."""
    folder = tmp_path_factory.mktemp("runs")
    write_csv(folder, "teacher", 2)
    draw = np.random.default_rng(0)
    for name, count in (("train", 60), ("dev", 20)):
        lines = [" ".join(draw.choice(WORDS, 8)) for _ in range(count)]
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    other = [f"{word}{end}" for word in WORDS for end in ("ing", "ness", "er", "s")]
    texts = [*(folder / "train.txt").read_text().splitlines(), " ".join(other)] * 4
    torch.manual_seed(0)
    pieces = train_word_pieces(texts, 200, 64)
    pieces.mask_token = "[MASK]"
    config = BertConfig(vocab_size=len(pieces) + 3, **SMALL)
    save(BertForMaskedLM(config), pieces, folder / "masked")
    pairs = train_byte_pairs(texts, 340, 64)
    ends = {"eos_token_id": pairs.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(pairs), pad_token_id=pairs.pad_token_id, **SMALL, **ends)
    save(LlamaForCausalLM(config), pairs, folder / "causal")
    return folder


def save(model, tokenizer, folder):
    model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def call(folder, capsys):
    def run(name: str, *arguments: str) -> tuple[Path, str]:
        call_in(folder, *arguments, f"hydra.run.dir={name}")
        return folder / name, capsys.readouterr().out

    return run


def row_of_table(said: str, name: str) -> list[str]:
    (line,) = [x for x in said.splitlines() if x.startswith(f"  {name} ")]
    return re.split(r" {2,}", line.strip())[1:]


def test_with_all_tokens_of_the_texts_it_is_the_teacher_until_it_learns(call, folder):
    still = ["optimizer.lr=1e-12", "student.vocabulary=seen", "student=pruned", "baseline=false"]
    run, said = call("seen", *DATA, "data.validation=te.csv", *OPTIONS, *TEACHER, *still)
    model = AutoModelForSequenceClassification.from_pretrained(run / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    assert row_of_table(said, "vocabulary")[:2] == ["90", str(len(tokenizer))]
    assert model.config.vocab_size == len(tokenizer) < 90
    assert float(row_of_table(said, "vocabulary")[-1]) == 0
    teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher").eval()
    whole = AutoTokenizer.from_pretrained(folder / "teacher")
    texts = [line.split(",")[0] for line in (folder / "tr.csv").read_text().splitlines()[1:]]
    with torch.no_grad():
        expected = teacher(**whole(texts, return_tensors="pt", padding=True)).logits
        found = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    report = json.loads((run / "report.json").read_text())
    metrics = [report[name]["metrics"]["accuracy"] for name in ("student", "teacher")]
    assert metrics[0] == metrics[1]


def test_live_caching_and_cached_teachers_teach_the_same(call):
    options = [*DATA, *OPTIONS, *FEWER, "student.parameters=60%"]
    live, said = call("live", *options, *TEACHER)
    assert "Vocabulary: 60 of the teacher's 90 tokens" in said
    report = json.loads((live / "report.json").read_text())
    size = report["student"]["parameters"] / report["teacher"]["parameters"]
    assert abs(size - 0.6) <= 0.012 and "(60" in row_of_table(said, "all")[2]
    read, _ = call("written", "job=cache", *DATA, "trainer.accelerator=cpu", *TEACHER)
    cached = [f"teacher.folder={read}/answers", "teacher=cached", "teacher.path=teacher"]
    cached_run, _ = call("cached", *options, *cached)
    assert len(losses(live)) == 2
    assert losses(cached_run) == pytest.approx(losses(live), abs=1e-6)
    call("measured", "job=evaluate", f"job.path={live}")
    again = json.loads((live.parent / "measured" / "evaluation.json").read_text())
    assert again["accuracy"] == report["student"]["metrics"]["accuracy"]


def test_stages_with_fewer_layers(call):
    stages = "stages=[{name:first,criteria:[soft_target]},{name:second,criteria:[hard_label]}]"
    cut = ["student=from_teacher", "student.layers=1", "student.vocabulary=seen", "baseline=false"]
    run, _ = call("staged", *DATA, *OPTIONS, *TEACHER, *cut, stages)
    config = json.loads((run / "student" / "config.json").read_text())
    assert config["num_hidden_layers"] == 1 and config["vocab_size"] < 90


def test_masked_language_models_learn_of_labels(call, folder, capsys):
    data = ["data=masked_corpus", "data.train=train.txt", "data.validation=dev.txt"]
    data += ["data.document=line", "data.max_length=16", "data.batch_size=16"]
    masked = ["teacher=pretrained", "teacher.path=masked", "student=pruned"]
    masked += ["student.vocabulary=seen", "optimizer.lr=1e-12"]
    run, said = call("tuned", "job=finetune", *data, *OPTIONS, *masked)
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    model = AutoModelForMaskedLM.from_pretrained(run / "student").eval()
    assert row_of_table(said, "vocabulary")[1] == str(len(tokenizer))
    teacher = AutoModelForMaskedLM.from_pretrained(folder / "masked").eval()
    whole = AutoTokenizer.from_pretrained(folder / "masked")
    check_kept_columns(model, tokenizer, teacher, whole, folder)
    with pytest.raises(SystemExit):
        call("refused", *data, *OPTIONS, *masked)
    said = capsys.readouterr()
    words = "data.task=masked_language_modelling compares both token by token. Train the smaller"
    assert words in said.err and "Epoch" not in said.out


def check_kept_columns(model, tokenizer, teacher, whole, folder):
    texts = (folder / "train.txt").read_text().splitlines()
    kept = [
        whole.get_vocab()[t] for t in sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    ]
    assert len(kept) < len(whole)
    for text in texts[:10]:
        ours, theirs = tokenizer(text, return_tensors="pt"), whole(text, return_tensors="pt")
        assert [kept[i] for i in ours["input_ids"][0]] == theirs["input_ids"][0].tolist()
        with torch.no_grad():
            found, expected = model(**ours).logits, teacher(**theirs).logits[..., kept]
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_causal_language_models_are_compared_by_their_texts(call, folder, capsys):
    data = ["data=text_corpus", "data.train=train.txt", "data.validation=dev.txt"]
    data += ["data.document=line", "data.max_length=32", "data.batch_size=4"]
    causal = ["teacher=pretrained", "teacher.path=causal", "student=pruned", "baseline=false"]
    causal += ["student.vocabulary=seen", "optimizer.lr=1e-12"]
    run, said = call("learnt", *data, *OPTIONS, *causal, "criteria=[alm]")
    assert row_of_table(said, "vocabulary")[-1] == "-"
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    model = AutoModelForCausalLM.from_pretrained(run / "student").eval()
    assert model.config.eos_token_id == tokenizer.eos_token_id
    teacher = AutoModelForCausalLM.from_pretrained(folder / "causal").eval()
    whole = AutoTokenizer.from_pretrained(folder / "causal")
    check_kept_columns(model, tokenizer, teacher, whole, folder)
    streamed = [*data, "data.streaming=true", "+trainer.limit_train_batches=2", "criteria=[alm]"]
    other, _ = call("streamed", *streamed, *OPTIONS, *causal)
    names = [(f / "student" / "tokenizer.json").read_text() for f in (run, other)]
    assert json.loads(names[0])["model"] == json.loads(names[1])["model"]
    with pytest.raises(SystemExit):
        call("refused", *data, *OPTIONS, *causal, "criteria=[hard_label,soft_target]")
    said = capsys.readouterr()
    words = "Term 'soft_target' compares logits by their ids. The tokenizers of student and teacher"
    assert words in said.err and "Epoch" not in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["student.vocabulary=20"], "student.vocabulary=20 is less than what must stay"),
        (["student.vocabulary=lots"], "the most tokens that the student shall have"),
        (["teacher=trained", "student.vocabulary=60"], "cuts the tokenizer of a teacher that is"),
        (["data.tokenizer=masked", "student.vocabulary=60"], "data.tokenizer names another one"),
        (["data=digits", "student.vocabulary=60"], "needs data of texts with a tokenizer"),
    ],
)
def test_what_cannot_be_is_one_error_before_the_first_step(call, capsys, arguments, words):
    data = [] if "data=digits" in arguments else DATA
    teacher = [] if "teacher=trained" in arguments else TEACHER
    with pytest.raises(SystemExit):
        call("refused", *data, *OPTIONS, *teacher, "student=pruned", *arguments)
    said = capsys.readouterr()
    assert words in said.err, said.err
    assert "Epoch" not in said.out


# Processes.


def test_killed_and_resumed_and_two_processes_see_the_same_tokens(folder):
    write_stop(folder)
    options = [*DATA, *OPTIONS[:1], "trainer.max_epochs=2", "data.batch_size=8", *TEACHER, *FEWER]
    options += ["callbacks=[best_checkpoint,last_checkpoint]", WITH_STOP]

    def left(name: str) -> dict[str, torch.Tensor]:
        model = AutoModelForSequenceClassification.from_pretrained(folder / name / "student")
        return model.state_dict()

    call_in(folder, *options, "hydra.run.dir=alone")
    kill_at(folder, 8, *options, "hydra.run.dir=cut")
    call_in(folder, "resume=cut")
    found, expected = left("cut"), left("alone")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    run_whole(folder, *options, "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two")
    texts = [
        (folder / name / "student" / "tokenizer.json").read_text() for name in ("alone", "two")
    ]
    assert texts[0] == texts[1] and left("two").keys() == expected.keys()

"""Who mistypes a key is told the right one, and how text is typed that Hydra cannot read."""

import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_distill.hints import hint, packaged_keys
from lightning_distill.overrides import readable_by_hydra, unreadable

UNKNOWN = {
    "sed=3": "There is no key or group 'sed'. Nearest: seed.",
    "loss=kl": "There is no key or group 'loss'. There are allow_targets, balance, baseline,",
    "trainer.max_epoch=3": "There is no trainer.max_epoch. Nearest: trainer.max_epochs, trainer",
    "criteria.soft_target.weigth=1": "Nearest: criteria.soft_target.weight.",
    "teacher.path=x": "teacher.path is a setting of teacher=pretrained or cached or caching or "
    "timm or unquantised, which is not chosen here: type teacher=pretrained too.",
    "student.quantization.train=x": "student.quantization is a single value here, and so there is "
    "no student.quantization.train. If it takes settings by name, type them together, as in "
    "'student.quantization={train:VALUE}'.",
    "student.path=x": "student.path is a setting of student=pretrained or lora or projected or "
    "timm,",
    "data.columns=x": "data.columns is a setting of data=text_files or embedding_files",
    "criteria.hint.weight=2": "which is not chosen here: type criteria=[hint] too.",
    # Of another choice that makes its students alike.
    "student.hidden_dropout_prob=0.1": "is not among the settings here, and can be added: type "
    "+student.hidden_dropout_prob=VALUE.",
    "student.nothing=2": "If its constructor takes nothing, type +student.nothing=VALUE.",
    "optimizer.rate=1": "optimizer.rate is no setting of torch.optim.AdamW, which has lr, betas,",
}


@pytest.mark.parametrize("word", UNKNOWN)
def test_an_unknown_key_is_met_with_the_one_that_is_meant(word):
    key = word.partition("=")[0]
    said = hint(f"Could not override '{key}'. To append to your config use +{word}", [word])
    assert UNKNOWN[word] in said and "+sed" not in said


def test_the_groups_that_are_chosen_decide_which_settings_there_are():
    typed = ["student=from_teacher", "student.hidden_size=8"]
    said = hint("Could not override 'student.hidden_size'.", typed)
    assert said.startswith("student.hidden_size is a setting of student=causal_lm or from_config")
    # What another one has by this very name is told beside what is written alike.
    said = hint("Could not override 'data.train'.", ["data=standard_library", "data.train=a.txt"])
    assert said.startswith("There is no data.train here. Nearest: data.streaming. It is a setting")
    assert " of data=text_files or chat_files or " in said and " or text_corpus" in said
    said = hint("Could not override 'student.num_layers'.", ["student.num_layers=2"])
    assert "Nearest: student.num_hidden_layers" in said and "=sequence_to_sequence" in said
    typed = ["teacher=pretrained", "teacher.pth=x"]
    assert "Nearest: teacher.path" in hint("Could not override 'teacher.pth'.", typed)
    said = hint("Could not override 'teacher.path'.", ["~teacher", "teacher.path=x"])
    assert (
        said == "~teacher leaves out what teacher.path is a setting of: type only one of the two."
    )
    # A second mistake is no reason to say nothing of the first.
    typed = ["student=nobody", "trainer.max_epoch=1"]
    assert "trainer.max_epochs" in hint("Could not override 'trainer.max_epoch'.", typed)


UNREADABLE = {
    "criteria=[hard_label": "criteria=[hard_label has 1 [ and 0 ].",
    "trainer={a:1": "has 1 { and 0 }.",
    "words": "'words' is no setting: write KEY=VALUE, as in seed=1, or a flag, as in --help.",
    "=3": "'=3' names no key",
    "data.train=a(1).csv": "type 'data.train='\"'\"'a(1).csv'\"'\"''.",
}


@pytest.mark.parametrize("word", UNREADABLE)
def test_what_cannot_be_read_is_met_with_what_to_type(word):
    assert UNREADABLE[word] in hint("mismatched input", [word])


@pytest.mark.parametrize(
    "value", ["a=b.ckpt", "gäß", "hash#x", "100%", "a b=c", "~x", "x;y", "größe/ü=1.tsv"]
)
def test_text_that_can_only_be_text_is_taken_for_it(value):
    (word,) = readable_by_hydra([f"job.to={value}"])
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize("word", ["a=[b", "a=f(x)", "a=k{1}", "a=it's", "=x", "words", "~teacher"])
def test_what_may_be_meant_otherwise_is_left_as_it_is(word):
    assert readable_by_hydra([word]) == [word]


def test_home_is_home_in_lists_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    typed = readable_by_hydra(["data.train=[~/a.csv,~/b.csv]", "x={y:~/c}", "a=b~/c"])
    assert typed[0] == "data.train=[/home/me/a.csv,/home/me/b.csv]" and typed[2] == "a='b~/c'"
    assert unreadable(typed[0]) is None


def test_a_key_that_is_there_needs_no_plus():
    said = hint("Could not append to config. An item is already at 'seed'.", ["+seed=3"])
    assert said == "The configuration has seed already: type it without the +."


def test_what_nobody_knows_better_is_left_to_hydra():
    assert hint("Multiple values for student", ["student=a", "student=b"]) is None


def test_the_keys_are_those_of_the_command():
    assert {"seed", "teacher", "criteria", "resume", "experiment"} <= {*packaged_keys()}
    assert "hydra" not in packaged_keys() and "defaults" not in packaged_keys()


def test_the_command_says_so(tmp_path):
    command = [sys.executable, "-m", "lightning_distill.main"]
    for typed, said in (("sed=3", "Nearest: seed."), ("+sed=3", "Nothing reads the key 'sed'.")):
        done = subprocess.run([*command, typed], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr

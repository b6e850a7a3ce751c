import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lightning_distill.overrides import as_override, quoted, readable_by_hydra

NAMES = ["runs/a", "a=b", "c,d", "~/x", "gäß", "it's", "h(1)", "k{1}", "hash#x", "two words", "12"]
NAMES += [
    "1e5",
    "null",
    "True",
    "inf",
    'say "it\'s"',
    "end\\",
    "a\\b",
    "\\'",
    "[x]",
    "x:y",
    "$a",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_printed_can_be_typed_back(name):
    (word,) = shlex.split(quoted("resume", name))
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "resume"
    value = override.value()
    assert (value if isinstance(value, str) else None) == name


VALUES = [1, 0.001, 1e-05, True, None, "40%", "12", "null", [1, 1, 3, 1], ["a b", None, 0.5]]
VALUES += [{"encoder": 6, "decoder": [1, 2]}, "it's", False, -3]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_plain_value_is_typed_back_as_it_is(value):
    (word,) = shlex.split(as_override("student.layers", value))
    found = OverridesParser.create().parse_override(word)
    assert found.key_or_group == "student.layers"
    read = OmegaConf.create({"x": found.value()})
    assert OmegaConf.to_container(read)["x"] == value
    assert type(OmegaConf.to_container(read)["x"]) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "student.hidden_states[-1]",
        "student.layer:encoder.layer[0].output",
        "teacher.hidden_states[*]",
        "rows[0-9].csv",
        "a[1][2]",
    ],
)
def test_an_index_needs_no_quotes(value):
    (word,) = readable_by_hydra([f"criteria.hint.inputs.student={value}"])
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize(
    "value", ["[a,b", "a]", "a[b", "[a][0]", "a[1],b[2]", "{a:[b]}", "f(a)[0]"]
)
def test_broken_brackets_and_lists_are_left_as_they_are(value):
    assert readable_by_hydra([f"key={value}"]) == [f"key={value}"]


def test_options_of_a_search_are_added_to_its_space():
    typed = ["job=search", "job.space.student.layers=[1,2]", "job.trials=3"]
    assert readable_by_hydra(typed) == [typed[0], f"++{typed[1]}", typed[2]]
    assert readable_by_hydra(["resume=run", "job.trials=3"]) == ["resume=run", "++job.trials=3"]


def test_what_needs_no_quotes_has_none():
    assert (
        quoted("resume", "runs/distill/2026-11-28_07-00") == "resume=runs/distill/2026-11-28_07-00"
    )
    assert quoted("job.checkpoint", "best-epoch-0-step-8.ckpt").count("'") == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=1", "-m", "seed=1,2"], ["-m", "a=1", "seed=1,2"]),
        (["a=1", "--cfg", "job", "b=2"], ["--cfg", "job", "a=1", "b=2"]),
        (["a=1", "-cd", "of=mine", "b=2"], ["-cd", "of=mine", "a=1", "b=2"]),
        (["a=1", "--info", "plugins", "b"], ["--info", "plugins", "a=1", "b"]),
        (["a=1", "--info", "b=2"], ["--info", "a=1", "b=2"]),
        (["~teacher", "lr=-1"], ["~teacher", "lr=-1"]),
    ],
)
def test_flags_may_come_after_overrides(words, expected):
    assert readable_by_hydra(words) == expected


@pytest.mark.parametrize("key", ["resume", "+own.key", "hydra.run.dir", "job.to", "teacher.path"])
def test_home_is_home_in_every_key(key, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a=b")
    (word,) = readable_by_hydra([f"{key}=~/x y"])
    assert OverridesParser.create().parse_override(word).value() == str(Path("/home/a=b/x y"))
    assert readable_by_hydra([f"{key}=~x"]) == [f"{key}='~x'"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("job=evaluate data.test=x.csv trainer.a=1", "job=evaluate ++data.test=x.csv trainer.a=1"),
        ("data.test=a,b job=inspect job.run=r", "++data.test=a,b job=inspect job.run=r"),
        (
            "job=cache job.run=r student.x=1 +data.y=1",
            "job=cache job.run=r ++student.x=1 +data.y=1",
        ),
        ("job=evaluate data=hub data.path=x", None),
        ("job=evaluate experiment=lm data.path=x", None),
        ("job=cache data.test=x.csv", None),
        ("data.test=x.csv job=finetune", None),
    ],
)
def test_settings_of_a_run_that_a_job_is_given_are_left_to_who_reads_it(typed, read):
    assert readable_by_hydra(typed.split()) == (read or typed).split()

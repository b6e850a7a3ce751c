import re

import pytest
from omegaconf import OmegaConf

from lightning_distill import read_config as reading
from lightning_distill.read_config import check_expansion, read_config


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_what_a_run_writes_is_read(tmp_path):
    cfg = OmegaConf.create({"a": {"b": [1, None, "${seed}"]}, "seed": 3, "c": "${a.b}"})
    found = read_config(written(tmp_path, OmegaConf.to_yaml(cfg)))
    assert found == cfg and found.c == [1, None, 3]


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, r"repeats a part of itself by an alias \(\*a\).*Write that part out"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "by an alias"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper than 50"),
        ("".join(f"{'  ' * i}a:\n" for i in range(60)), "nested deeper than 50"),
        ("- a\n- b\n", "has no keys"),
        ("a: [1\n", "is no configuration of a run"),
        ("a: !!python/object/apply:os.getcwd []\n", "is no configuration of a run"),
    ],
)
def test_what_no_run_writes_is_refused(tmp_path, text, words):
    with pytest.raises(ValueError, match=rf"config\.yaml .*{words}".replace("config", "config", 1)):
        read_config(written(tmp_path, text))


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LONGEST_FILE", 100)
    with pytest.raises(ValueError, match=r"has 101 bytes.*at most 100"):
        read_config(written(tmp_path, "#" * 101))


def chain(text, first="x" * 40, **more):
    """Values of which each has ten times the one before."""
    values = {"v0": first}
    values.update({f"v{i}": text.replace("N", str(i - 1)) * 10 for i in range(1, 12)})
    return OmegaConf.create({**values, **more})


@pytest.mark.parametrize(
    "cfg",
    [
        chain("${vN}"),
        chain("${.vN}"),
        chain(r"\${vN}", last="${oc.decode:${v11}}"),
        OmegaConf.create({"inner": chain("${..inner.vN}")}),
        chain("${a[N]}", a=[f"${{v{i}}}" for i in range(12)]),
        OmegaConf.create(
            {"v0": {"x": 1}}
            | {f"v{i}": {k: f"${{v{i - 1}}}" for k in "abcdefgh"} for i in range(1, 12)}
        ),
        OmegaConf.create(
            {
                "a": ["${b}"] * 9,
                **{c: [f"${{{d}}}"] * 9 for c, d in zip("bcdefgh", "cdefghi", strict=True)},
                "i": "x" * 9,
            }
        ),
    ],
    ids=["absolute", "relative", "decoded", "inner", "of-lists", "of-keys", "lists"],
)
def test_interpolations_that_would_expand_without_end_are_refused(cfg):
    with pytest.raises(ValueError, match=r"would have more than 4,194,304 characters"):
        check_expansion(cfg)


def test_interpolations_of_ordinary_size_pass():
    cfg = {"lr": 1, "a": {"lr": "${lr}", "b": "${.lr}/${oc.env:HOME,x}"}, "c": ["${a}"] * 20}
    check_expansion(OmegaConf.create({**cfg, "d": "${c[3].b}", "e": "${missing}", "f": "${d.x.y}"}))


def test_a_name_out_of_names_is_refused():
    with pytest.raises(ValueError, match=re.escape("a: ${${b}} takes a name from elsewhere")):
        check_expansion(OmegaConf.create({"a": "${${b}}", "b": "a"}))


def test_a_chain_without_end_is_refused():
    with pytest.raises(ValueError, match="too often to follow"):
        check_expansion(OmegaConf.create({f"v{i}": f"${{v{i + 1}}}" for i in range(5000)}))

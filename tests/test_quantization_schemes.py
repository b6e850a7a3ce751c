"""What may be typed as a quantisation, and what is said of the rest."""

import pytest

from lightning_distill.quantization_schemes import (
    check_torchao,
    Quantization,
    quantization_of,
    scheme_named,
    SCHEMES,
)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_name_says_bits_and_whether_inputs_are_rounded(name):
    scheme = scheme_named(name)
    assert f"int{scheme.bits}" in name and scheme.activations == (not name.endswith("_weights"))
    assert (scheme.group is None) == (scheme.bits == 8)


def test_a_word_trains_weights_and_a_mapping_says_what_is_trained():
    assert quantization_of(None) is None
    assert quantization_of("int4") == Quantization(SCHEMES["int4"], "weights")
    both = quantization_of({"scheme": "int8_weights", "train": "scales"})
    assert both == Quantization(SCHEMES["int8_weights"], "scales")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "int8_weight",
            r"^student.quantization must be int8, int8_weights, int4, int4_weights or null, got "
            r"'int8_weight'\. Did you mean int8_weights\?$",
        ),
        ("fp16", r"or null, got 'fp16'\.$"),
        (8, r"or null, got 8\.$"),
        (True, "got True"),
        ({"shceme": "int4"}, r"takes scheme and train, got 'shceme'\. Did you mean scheme\?"),
        ({"train": "scales"}, r"quantization\.scheme must be int8, .* got None"),
        (
            {"scheme": "int4", "train": "scale"},
            r"quantization\.train must be weights or scales, got 'scale'\. Did you mean scales\?",
        ),
    ],
)
def test_others_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        quantization_of(given)


def test_without_torchao_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = r"student.quantization=int4 needs the package torchao, .*distill\[quantization\]'"
    with pytest.raises(ValueError, match=words):
        check_torchao("student.quantization=int4")

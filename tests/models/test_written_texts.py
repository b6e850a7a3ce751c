"""Texts that encoder-decoders write, whatever their own settings say of lengths."""

import logging

import pytest
from encoder_decoders import batch, FAMILIES, model

from lightning_distill.models.inputs import model_inputs
from lightning_distill.models.written_texts import write_texts, Writing


@pytest.mark.parametrize("family", FAMILIES)
def test_a_length_of_the_model_s_own_neither_counts_nor_is_warned_of(family, caplog, monkeypatch):
    """As in the folders of Marian (512) and Whisper (448)."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    own, given = model(family), batch(family)
    given = model_inputs(given, own)
    own.generation_config.max_length = None
    expected = write_texts(own, given, Writing(6))
    for length in (3, 20):
        own.generation_config.max_length = length
        assert write_texts(own, given, Writing(6)).equal(expected)
        assert own.generation_config.max_length == length
    assert expected.shape[1] > 3
    assert not caplog.records, "nothing that the user could change"

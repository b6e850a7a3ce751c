import json

import pytest
import torch
from tiny import bert
from torch import nn

from lightning_distill.models.hugging_face import load
from lightning_distill.models.memory import check_memory, check_sizes
from lightning_distill.students import from_config

HUGE = [
    ({"num_hidden_layers": 10**9}, "`num_hidden_layers` of a model can be at most 10,000"),
    ({"hidden_size": 10**9}, "`hidden_size` of a model can be at most 20,000,000"),
    ({"max_position_embeddings": 10**12}, "`max_position_embeddings` of a model"),
    ({"vocab_size": 10**12}, "`vocab_size` of a model"),
    ({"intermediate_size": 10**7, "hidden_size": 10**6}, "weights, which take .* of memory"),
]


@pytest.mark.parametrize(("fields", "words"), HUGE)
def test_a_saved_model_that_is_too_large_is_refused_before_it_is_made(tmp_path, fields, words):
    bert(layers=1, width=8).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match=words):
        load(str(tmp_path), None)


@pytest.mark.parametrize(("fields", "words"), HUGE)
def test_a_student_that_is_too_large_is_refused_before_it_is_made(fields, words):
    made = {"vocab_size": 9, "num_labels": 2, "num_attention_heads": 1} | fields
    with pytest.raises(ValueError, match=words):
        from_config("bert", **made)


def test_sizes_are_found_wherever_they_stand():
    check_sizes({"rope_theta": 10**8, "pad_token_id": 10**9, "layer_norm_eps": 1e-12, "tied": True})
    with pytest.raises(ValueError, match="`depths`"):
        check_sizes({"vision": [{"depths": [2, 10**5]}]})


def test_only_what_may_be_too_large_is_counted():
    def unasked():
        raise AssertionError

    check_memory({"hidden_size": 1000, "num_hidden_layers": 24}, unasked, 4)
    # Wide in its configuration, and small in fact.
    check_memory({"intermediate_size": 10**7}, lambda: nn.Linear(2, 2), 4)
    with pytest.raises(ValueError, match="too large for any machine"):
        check_memory({"dim": 10**7}, lambda: nn.Linear(2**40, 2**40), 4)
    assert torch.get_default_device().type == "cpu"

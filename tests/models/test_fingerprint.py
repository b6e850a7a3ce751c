import copy
import hashlib

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
)

from lightning_distill.models import fingerprint


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_it_is_the_hash_of_names_types_shapes_and_bytes():
    layer = nn.Linear(2, 1)
    expected = hashlib.sha256()
    for name, shape in (("bias", "(1,)"), ("weight", "(1, 2)")):
        expected.update(f"{name} torch.float32 {shape}\n".encode())
        expected.update(getattr(layer, name).detach().numpy().tobytes())
    assert fingerprint(layer) == expected.hexdigest()


def test_mode_gradients_and_copying_do_not_matter():
    first = model()
    expected = fingerprint(first)
    assert fingerprint(copy.deepcopy(first).eval().requires_grad_(False)) == expected
    assert fingerprint(first) == expected


def flip_a_bit(m):
    m[0].weight.data.view(torch.int32)[1, 1] ^= 1


def move_a_buffer(m):
    m[1].running_mean[2] += 1e-7


def count_a_batch(m):
    m[1].num_batches_tracked += 1


def swap_rows(m):
    m[0].weight.data = m[0].weight.data.flip(0)


def reshape(m):
    m[2].weight.data = m[2].weight.data.reshape(4, 2)


def cast(m):
    # Zeros have the same bytes in both types of this size.
    m[0].bias = nn.Parameter(torch.zeros(4, dtype=torch.int32), requires_grad=False)


@pytest.mark.parametrize(
    "change", [flip_a_bit, move_a_buffer, count_a_batch, swap_rows, reshape, cast]
)
def test_every_change_of_a_weight_or_buffer_changes_it(change):
    changed = model()
    nn.init.zeros_(changed[0].bias)
    before = fingerprint(changed)
    with torch.no_grad():
        change(changed)
    assert fingerprint(changed) != before


def test_names_matter():
    weights = torch.ones(2)
    a, b = nn.Module(), nn.Module()
    a.register_buffer("x", weights)
    b.register_buffer("y", weights)
    assert fingerprint(a) != fingerprint(b)


def test_memory_layout_does_not_matter():
    first, second = nn.Linear(3, 4), nn.Linear(3, 4)
    second.load_state_dict(first.state_dict())
    second.weight.data = second.weight.data.t().contiguous().t()
    assert not second.weight.is_contiguous()
    second.bias.data = torch.stack([second.bias.data, torch.zeros(4)], dim=1)[:, 0]
    assert not second.bias.is_contiguous()
    assert fingerprint(second) == fingerprint(first)


def test_bfloat16_scalars_and_empty_tensors_count():
    m = model().bfloat16()
    m.register_buffer("empty", torch.empty(0, 3))
    before = fingerprint(m)
    m[1].num_batches_tracked += 1
    assert fingerprint(m) != before
    assert fingerprint(model()) != fingerprint(model().bfloat16())


def test_buffers_that_are_not_saved_do_not_count():
    m = model()
    before = fingerprint(m)
    m.register_buffer("scratch", torch.randn(3), persistent=False)
    assert fingerprint(m) == before


def test_an_extra_state_that_is_no_tensor_does_not_count():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"any": object()}

        def set_extra_state(self, state):
            pass

    assert fingerprint(nn.ModuleList([Extra(1, 1)])) != fingerprint(nn.ModuleList())


def test_tied_weights_survive_saving_and_loading(tmp_path):
    config = GPT2Config(
        n_embd=32, n_layer=1, n_head=2, vocab_size=60, bos_token_id=1, eos_token_id=1
    )
    tied = GPT2LMHeadModel(config)
    assert tied.lm_head.weight is tied.transformer.wte.weight
    tied.save_pretrained(tmp_path)
    assert fingerprint(GPT2LMHeadModel.from_pretrained(tmp_path)) == fingerprint(tied)


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 50}


def of_config(kind: type, **fields) -> str:
    auto = AutoModelForCausalLM if kind is LlamaConfig else AutoModelForSequenceClassification
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fingerprint(auto.from_config(kind(**{**SIZES, "num_attention_heads": 2, **fields})))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (BertConfig, {"num_attention_heads": 4}),
        (BertConfig, {"layer_norm_eps": 1e-3}),
        (BertConfig, {"hidden_act": "relu"}),
        # All of its layers are one.
        (AlbertConfig, {"num_hidden_layers": 3}),
        (LlamaConfig, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}),
    ],
)
def test_equal_weights_under_a_configuration_that_answers_otherwise_are_another_model(kind, fields):
    weights = {"embedding_size": 8} if kind is AlbertConfig else {}
    assert of_config(kind, **weights) != of_config(kind, **weights, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_dropout_prob": 0.3},
        {"use_cache": False},
        {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}},
        {"eos_token_id": 3},
        {"output_hidden_states": True},
    ],
)
def test_what_leaves_the_answers_as_they_are_does_not_count(fields):
    assert of_config(BertConfig) == of_config(BertConfig, **fields)


def test_a_model_is_the_same_when_it_is_saved_and_loaded(tmp_path):
    config = BertConfig(**SIZES, num_attention_heads=2)
    made = AutoModelForSequenceClassification.from_config(config)
    made.save_pretrained(tmp_path)
    auto = AutoModelForSequenceClassification
    for how in ({}, {"dtype": "auto"}, {"attn_implementation": "eager"}):
        assert fingerprint(auto.from_pretrained(tmp_path, **how)) == fingerprint(made)

import pytest
import torch

from lightning_distill.students import from_config

BERT = {
    "model_type": "bert",
    "num_labels": 3,
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
# Each family has its own names for the same sizes; these are the common ones and their own.
FAMILIES = [
    BERT,
    BERT | {"model_type": "roberta"},
    BERT | {"model_type": "electra", "embedding_size": 16},
    {"model_type": "distilbert", "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48},
    {"model_type": "distilbert", "hidden_size": 32, "num_hidden_layers": 1, "hidden_dim": 48}
    | {"num_attention_heads": 4},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4},
    {"model_type": "gpt2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    BERT | {"model_type": "llama", "num_key_value_heads": 2},
]


def options(**changes):
    return {"num_labels": 3, "vocab_size": 60, "pad_token_id": 1} | changes


def weights(model):
    return torch.cat([p.flatten() for p in model.parameters()])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f['model_type']}-{len(f)}")
def test_every_family_is_built_to_size_by_any_of_its_names(family):
    student = from_config(**options(**family))
    config = student.config
    assert config.model_type == family["model_type"]
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 1, 4)
    assert student.get_input_embeddings().weight.shape[0] == 60
    assert config.pad_token_id == 1
    assert student(input_ids=torch.tensor([[5, 6, 1], [7, 1, 1]])).logits.shape == (2, 3)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in student.parameters())
    assert student.training


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    first = weights(from_config(**BERT, seed=7))
    torch.randn(100)
    assert torch.equal(weights(from_config(**BERT, seed=7)), first)
    assert not torch.equal(weights(from_config(**BERT, seed=8)), first)


def test_building_draws_no_random_number_of_the_run():
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    from_config(**BERT)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        ("classification", 3, "single_label_classification"),
        ("multi_label", 3, "multi_label_classification"),
        ("regression", 1, "regression"),
    ],
)
def test_the_task_is_written_into_the_configuration(task, labels, problem):
    config = from_config(**BERT | {"num_labels": labels}, task=task).config
    assert (config.problem_type, config.num_labels) == (problem, labels)


def test_label_names_are_written_into_the_configuration():
    config = from_config(**BERT, label_names=["x", "y", "z"]).config
    assert config.id2label == {0: "x", 1: "y", 2: "z"}
    assert config.label2id == {"x": 0, "y": 1, "z": 2}


def test_a_head_size_of_its_own_need_not_divide_the_width():
    own = {"model_type": "qwen3", "num_attention_heads": 3, "num_key_value_heads": 3}
    student = from_config(**BERT | own, head_dim=8, pad_token_id=0)
    assert student.model.layers[0].self_attn.q_proj.weight.shape == (24, 32)


def test_attention_maps_come_with_eager_attention():
    student = from_config(**BERT, attn_implementation="eager")
    out = student(input_ids=torch.ones(1, 5, dtype=torch.long), output_attentions=True)
    assert out.attentions[0].shape == (1, 4, 5, 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "brt"}, "`model_type` 'brt' is unknown.*Nearest: .*bert"),
        ({"hiden_size": 8}, "A bert has no configuration field 'hiden_size'. Nearest: hidden_size"),
        ({"to_dict": 8}, "A bert has no configuration field 'to_dict'"),
        ({"num_attention_heads": 5}, "multiple of `num_attention_heads`, got 32 and 5"),
        (
            {"model_type": "gpt2", "hidden_size": 32, "num_attention_heads": 5}
            | {"intermediate_size": 64},
            "A gpt2 has no configuration field 'intermediate_size'. "
            "null leaves it out, as in student.intermediate_size=null",
        ),
        ({"model_type": "llama", "num_attention_heads": 5}, "got 32 and 5"),
        ({"hidden_size": "wide"}, "no configuration of a bert: .*'hidden_size' expected int"),
        ({"task": "sorting"}, "`task` must be one of classification, multi_label, regression"),
        ({"task": "regression"}, "A regression predicts one number: num_labels=1, got 3"),
        ({"label_names": ["x", "y"]}, "There are 3 labels, but 2 names"),
        ({"num_labels": 0}, "`num_labels` must be at least 1, got 0"),
        ({"vocab_size": 0}, "`vocab_size` must be at least 1, got 0"),
        ({"auto_class": "AutoModelForSequence"}, "Nearest: AutoModelFor"),
        ({"auto_class": "AutoModelForImageClassification"}, "No AutoModelForImageC.* of a bert: "),
    ],
)
def test_a_wrong_configuration_says_what_is_right(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        from_config(**BERT | changes)
    assert "\n" not in str(caught.value)


def test_a_gpt2_by_its_common_names_has_heads_that_fit():
    with pytest.raises(ValueError, match=r"`hidden_size` must be a multiple .* got 32 and 5"):
        from_config("gpt2", 3, 60, n_embd=32, num_attention_heads=5)

"""Sizes that are asked for, counted from configurations without memory, and what is refused."""

from dataclasses import replace
from functools import cache

import pytest
import torch
import transformers
from students.families import FAMILIES
from students.test_pruned import anatomy_of

from lightning_distill.students.find_size import asked_size
from lightning_distill.students.importance import at_random
from lightning_distill.students.layer_stacks import built_on_paper
from lightning_distill.students.pruned import prune, smaller_shape
from lightning_distill.students.units import Anatomy

SMALL_LLAMA = {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192}
SMALL_LLAMA |= {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL_LLAMA |= {"head_dim": 64, "tie_word_embeddings": True}
QWEN = {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128}
QWEN |= {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
T5 = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128}
# With their sizes, as they are published.
MODELS = {
    "bert": ("BertForSequenceClassification", {}, 109_483_778),
    "roberta": (
        "RobertaForSequenceClassification",
        {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        124_647_170,
    ),
    "modernbert": ("ModernBertForSequenceClassification", {}, 149_606_402),
    "gpt2": ("GPT2LMHeadModel", {}, 124_439_808),
    "llama": ("LlamaForCausalLM", SMALL_LLAMA, 1_235_814_400),
    "qwen3": ("Qwen3ForCausalLM", QWEN | {"tie_word_embeddings": True}, 596_049_920),
    "t5": ("T5ForConditionalGeneration", T5, 60_506_624),
    "vit": ("ViTForImageClassification", {}, 85_800_194),
}


@cache
def on_paper(kind):
    name, fields, size = MODELS[kind]
    config = transformers.AutoConfig.for_model(kind, **fields)
    return Anatomy(built_on_paper(getattr(transformers, name), config)), size


def counted(anatomy, shape):
    """As transformers builds it."""
    config = anatomy.config(shape)
    for stack, layers in zip(anatomy.stacks, shape.layers, strict=True):
        stack.write(config, [list(range(layers))])
    return sum(p.numel() for p in built_on_paper(type(anatomy.model), config).parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_sizes_are_within_two_percent_and_homogeneous(kind):
    anatomy, size = on_paper(kind)
    assert anatomy.count(anatomy.shape) == size
    for share in (30, 40, 60, 80):
        shape = smaller_shape(anatomy, parameters=f"{share}%")
        assert counted(anatomy, shape) == anatomy.count(shape)
        assert abs(counted(anatomy, shape) / size - share / 100) <= 0.02 * share / 100
        assert shape.width % 8 == shape.intermediate % 8 == shape.heads % shape.key_values == 0
        if share >= 60:
            assert shape.width == anatomy.shape.width


def test_layers_and_neurons_are_cut_by_like_shares_and_the_width_where_it_must_be():
    anatomy, _ = on_paper("bert")
    shape = smaller_shape(anatomy, parameters="60%")
    assert (shape.layers, shape.heads, shape.width) == ((8,), 12, 768)
    assert abs(shape.intermediate / 3072 - 8 / 12) < 0.1
    # A fifth is less than the embeddings and what is left of the rest.
    shape = smaller_shape(anatomy, parameters="20%")
    assert shape.width == 64 * shape.heads < 768


def test_what_is_named_stays_and_the_rest_is_found():
    anatomy, size = on_paper("llama")
    shape = smaller_shape(anatomy, parameters="600M", layers=10, heads=16)
    assert (shape.layers, shape.heads, shape.key_values) == ((10,), 16, 4)
    assert abs(anatomy.count(shape) - 600e6) <= 12e6
    # Without a size nothing else changes.
    shape = smaller_shape(anatomy, width=1024)
    assert shape == replace(anatomy.shape, width=1024)
    anatomy, size = on_paper("t5")
    shape = smaller_shape(anatomy, parameters=0.5, layers={"decoder": 1})
    assert shape.layers == (6, 1) and abs(anatomy.count(shape) / size - 0.5) <= 0.01


def test_sizes_are_read_as_they_are_typed():
    assert asked_size("40%", 1000) == asked_size(0.4, 1000) == asked_size("400", 1000) == 400
    assert asked_size("22.5M", 10**9) == asked_size("22500k", 10**9) == 22_500_000
    for wrong in ("forty", True, "-3", "40 percent"):
        with pytest.raises(ValueError, match="must be a share of the teacher's, as 40%, or a num"):
            asked_size(wrong, 1000)
    for wrong in ("140%", "2M", "0"):
        with pytest.raises(ValueError, match="more than 0 and at most the teacher's 1,000, got"):
            asked_size(wrong, 1000)


BERT, LLAMA = (next(f for f in FAMILIES if f.name == n) for n in ("BERT", "Qwen3"))
ERRORS = [
    (BERT, {}, "must be told how small the student shall be: student.parameters=40%, or one of"),
    (BERT, {"layers": 5}, "`layers` must be from 1 to 4, as the teacher has, got 5"),
    (BERT, {"heads": 3}, "`heads` must be a whole number from 1 to the teacher's 2, got 3"),
    (BERT, {"intermediate": 0}, "`intermediate` must be a whole number from 1 to .* 24, got 0"),
    (BERT, {"width": 12}, "`width` must be a multiple of 8, the size of a head, .*, got 12"),
    (BERT, {"width": 16, "heads": 1}, "1 heads of 8 are a width of 8, and student.width=16. Name"),
    (
        BERT,
        {"parameters": "1%"},
        r"174 parameters, .*2%\. The smallest has 5,052 \(29\.1% .* the largest 17,379 \(100",
    ),
    (BERT, {"parameters": 40}, r"100\.0%\)\. A share has a percent sign: student.parameters=40%\."),
    (BERT, {"parameters": 400}, r"100\.0%\)\. Ask for another size, or name fewer parts"),
    (
        BERT,
        {"parameters": "75%", "width": 16, "intermediate": 24},
        "With heads, intermediate, width as named, the smal.*; the nearest have 11,499 and 13,459",
    ),
]


@pytest.mark.parametrize(("family", "asked", "words"), ERRORS)
def test_what_cannot_be_is_refused(family, asked, words):
    with pytest.raises(ValueError, match=words):
        smaller_shape(anatomy_of(family), **asked)


def test_heads_go_in_whole_groups():
    anatomy = anatomy_of(LLAMA, num_attention_heads=8, num_key_value_heads=4)
    with pytest.raises(ValueError, match="`heads` must be a multiple of 2, for so many of the te"):
        smaller_shape(anatomy, heads=3)


def test_models_that_are_not_in_the_table_are_refused():
    family = next(f for f in FAMILIES if f.name == "ALBERT")
    words = "these kinds narrower: bert, deit, .*; the teacher is a AlbertFor.*Take student=from_t"
    with pytest.raises(ValueError, match=words):
        Anatomy(family.build())
    with pytest.raises(ValueError, match="the teacher is a Linear. Take"):
        Anatomy(torch.nn.Linear(2, 2))
    # A decoder that reads an encoder has weights that are not in the table.
    config = replace(BERT, config={**BERT.config, "is_decoder": True, "add_cross_attention": True})
    with pytest.raises(ValueError, match=r"does not know what .*crossattention"):
        Anatomy(config.build())


def test_layers_that_matter_most_are_kept_with_a_first_one_that_is_unlike_the_others():
    for name, expected in (("BERT", [1, 3]), ("ModernBERT", [0, 1])):
        anatomy = anatomy_of(next(f for f in FAMILIES if f.name == name))
        scores = at_random(anatomy, 0)
        (path,) = scores.layers
        scores.layers[path] = torch.tensor([0.1, 0.9, 0.2, 0.8])
        if name == "ModernBERT":
            # What kind of attention a layer has goes with it.
            assert anatomy.model.config.layer_types[1] == "sliding_attention"
        shape = smaller_shape(anatomy, layers=2, keep="importance")
        student = prune(anatomy, shape, scores, "importance")
        for new, old in enumerate(expected):
            ours, theirs = (m.get_submodule(f"{path}.{i}").state_dict() for m, i in
                            ((student, new), (anatomy.model, old)))  # fmt: skip
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(v, theirs[n]) for n, v in ours.items())


def test_only_what_transformers_can_save_is_found(tmp_path):
    # Of Llama the heads must divide the width, whatever their size: 160 numbers have no 3 heads.
    config = transformers.LlamaConfig(
        hidden_size=160,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=40,
        intermediate_size=432,
        vocab_size=400,
    )
    anatomy = Anatomy(transformers.LlamaForCausalLM(config))
    for share in ("60%", "75%", "90%"):
        shape = smaller_shape(anatomy, share)
        assert shape.width % shape.heads == 0, share
        prune(anatomy, shape, at_random(anatomy, 0)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hidden size .160. is not a multiple .*another student"):
        smaller_shape(anatomy, heads=3)

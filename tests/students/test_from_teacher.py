import copy

import pytest
import torch
import transformers
from students.families import FAMILIES as FAMILIES_OF_ALL
from tiny import bert
from torch import nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
)

from lightning_distill.models import fingerprint
from lightning_distill.students import from_teacher
from lightning_distill.students.layer_stacks import layer_stacks

LAYERS = 4
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
SIZES = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
FAMILIES = {
    "bert": (SIZES | {"intermediate_size": 48}, "bert.encoder.layer"),
    "roberta": (SIZES | {"intermediate_size": 48}, "roberta.encoder.layer"),
    "electra": (SIZES | {"intermediate_size": 48, "embedding_size": 16}, "electra.encoder.layer"),
    "deberta-v2": (
        SIZES
        | {"intermediate_size": 48, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        "deberta.encoder.layer",
    ),
    "distilbert": (
        {"dim": 32, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 48},
        "distilbert.transformer.layer",
    ),
    "gpt2": ({"n_embd": 32, "n_layer": LAYERS, "n_head": 4}, "transformer.h"),
    "llama": (SIZES | {"intermediate_size": 48, "num_key_value_heads": 2}, "model.layers"),
    "qwen3": (
        SIZES
        | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 2}
        | {"use_sliding_window": True}
        | {"layer_types": ["full_attention", "sliding_attention"] * 2},
        "model.layers",
    ),
}


def build(family, auto_class=AutoModelForSequenceClassification):
    sizes, path = FAMILIES[family]
    more = {"num_labels": 3} if auto_class is AutoModelForSequenceClassification else {}
    config = AutoConfig.for_model(
        family, vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes, **more
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = auto_class.from_config(config)
        for p in model.parameters():
            # The usual small numbers would make every layer nearly the identity.
            nn.init.normal_(p, std=0.2) if p.dim() > 1 else None
    return model.eval().requires_grad_(False), path


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def skipping(model, path, kept):
    """The model's logits with all layers but these passed over, by the model's own forward."""
    model = copy.deepcopy(model)
    with_attention = model.config.model_type == "deberta-v2"
    for i, layer in enumerate(model.get_submodule(path)):
        if i not in kept:
            layer.forward = lambda hidden_states, *args, **kwargs: (
                (hidden_states, None) if with_attention else hidden_states
            )
    return logits(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_with_all_layers_answers_as_the_teacher(family):
    teacher, _ = build(family)
    student = from_teacher(teacher, layers=LAYERS)
    assert type(student) is type(teacher)
    assert torch.equal(logits(student), logits(teacher))


@pytest.mark.parametrize("kept", [[0], [1, 3], [0, 2, 3]], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_answers_as_the_teacher_with_the_other_layers_passed_over(family, kept):
    teacher, path = build(family)
    student = from_teacher(teacher, keep=kept)
    assert len(student.get_submodule(path)) == len(kept) == student.config.num_hidden_layers
    found = logits(student)
    assert_close(found, skipping(teacher, path, kept))
    assert (found - logits(teacher)).abs().max() > 1e-3


def test_the_first_layers_compute_the_teachers_hidden_states():
    teacher, _ = build("bert")
    student = from_teacher(teacher, 2, "first").eval()
    with torch.no_grad():
        ours = student(input_ids=IDS, output_hidden_states=True).hidden_states
        theirs = teacher(input_ids=IDS, output_hidden_states=True).hidden_states
    assert len(ours) == 3
    for state, expected in zip(ours, theirs[:3], strict=True):
        assert torch.equal(state, expected)


@pytest.mark.parametrize(
    ("keep", "numbers"),
    [
        ("uniform", [1, 3]),
        ("first", [0, 1]),
        ("last", [2, 3]),
        ("skip", [1, 3]),
        ("every_1", [0, 1]),
        ([-1, 0], [3, 0]),
    ],
)
def test_each_strategy_copies_its_layers(keep, numbers):
    teacher, _ = build("bert")
    student = from_teacher(teacher, layers=2, keep=keep)
    for layer, number in zip(student.bert.encoder.layer, numbers, strict=True):
        original = teacher.bert.encoder.layer[number].state_dict()
        assert all(torch.equal(t, original[n]) for n, t in layer.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_student_is_trainable_and_shares_no_memory_with_the_teacher(family):
    teacher, _ = build(family)
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    config = teacher.config.to_dict()
    student = from_teacher(teacher, layers=2)
    assert all(module.training for module in student.modules())
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        for p in student.parameters():
            p.fill_(7.0)
    student.config.num_labels = 9
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())
    assert teacher.config.to_dict() == config
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training


def test_without_dropout_the_teacher_keeps_its_own():
    teacher = bert(2, 16)
    for given, expected in ((False, {0.0}), (True, {0.1}), (None, {0.1})):
        student = from_teacher(teacher, 1, dropout=given)
        assert {m.p for m in student.modules() if isinstance(m, nn.Dropout)} == expected
    assert {m.p for m in teacher.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert teacher.config.hidden_dropout_prob == 0.1


def test_a_half_precision_teacher_gives_a_float32_student():
    teacher, _ = build("llama")
    student = from_teacher(teacher.bfloat16(), layers=2)
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    assert student.config.dtype == torch.float32
    assert torch.equal(student.score.weight.bfloat16(), teacher.score.weight)


def test_settings_per_layer_are_cut_with_the_layers():
    teacher, _ = build("qwen3")
    # As long as the layers by chance, and none of their business.
    teacher.config.eos_token_id = [2, 3, 4, 5]
    student = from_teacher(teacher, keep=[1, 2, 3])
    kept = ["sliding_attention", "full_attention", "sliding_attention"]
    assert student.config.layer_types == kept
    assert student.config.eos_token_id == [2, 3, 4, 5]


def test_a_tied_head_stays_tied_and_generation_stays_as_it_was():
    teacher, _ = build("gpt2", AutoModelForCausalLM)
    teacher.generation_config.max_new_tokens = 3
    student = from_teacher(teacher, layers=2)
    assert student.lm_head.weight is student.transformer.wte.weight
    assert student.generation_config.max_new_tokens == 3
    assert student.generation_config is not teacher.generation_config


def test_labels_and_attention_stay_as_the_teachers():
    names = {0: "a", 1: "b", 2: "c"}
    teacher = bert(3, 32, id2label=names, label2id={n: i for i, n in names.items()})
    teacher.set_attn_implementation("eager")
    student = from_teacher(teacher, layers=1)
    assert student.config.id2label == names
    assert student(input_ids=IDS, output_attentions=True).attentions[0].shape == (2, 2, 4, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_student_is_loaded_by_transformers_alone(family, tmp_path):
    teacher, _ = build(family)
    student = from_teacher(teacher, layers=2)
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert fingerprint(again) == fingerprint(student)
    assert_close(logits(again), logits(student))


def test_cutting_draws_no_random_number_of_the_run():
    teacher, _ = build("bert")
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    from_teacher(teacher, layers=2)
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "`layers` says how many of the teacher's 4 layers to keep"),
        ({"layers": 0}, "`layers` must be from 1 to 4, as the teacher has, got 0"),
        ({"layers": 5}, "`layers` must be from 1 to 4, as the teacher has, got 5"),
        ({"layers": 2, "keep": "lats"}, "Did you mean 'last'"),
        ({"layers": 2, "keep": [0, 1, 2]}, "`layers` is 2, but `keep` lists 3"),
        ({"keep": [0, 4]}, "The teacher has no layer 4: it has 4, numbered 0 to 3"),
        ({"keep": []}, "`keep` lists no layers"),
    ],
)
def test_a_wrong_choice_of_layers_says_what_is_right(options, words):
    teacher, _ = build("bert")
    with pytest.raises(ValueError, match=words):
        from_teacher(teacher, **options)


def test_a_plain_module_is_refused():
    with pytest.raises(ValueError, match=r"cuts Hugging Face models, got a Sequential.*_target_"):
        from_teacher(nn.Sequential(nn.Linear(2, 2)), layers=1)


def of_family(name):
    return next(family for family in FAMILIES_OF_ALL if family.name == name).build()


def counts(student):
    return {stack.name: stack.counts for stack in layer_stacks(student)}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"layers": 2}, {"encoder": (2,), "decoder": (2,)}),
        ({"layers": {"encoder": 3, "decoder": 1}}, {"encoder": (3,), "decoder": (1,)}),
        ({"layers": {"decoder": 1}}, {"encoder": (4,), "decoder": (1,)}),
        ({"keep": {"encoder": [0, 3]}}, {"encoder": (2,), "decoder": (4,)}),
        ({"layers": 2, "keep": "last"}, {"encoder": (2,), "decoder": (2,)}),
    ],
)
def test_an_encoder_and_a_decoder_are_cut_together_or_apart(options, found):
    assert counts(from_teacher(of_family("BART"), **options)) == found


def test_layers_are_chosen_by_name_too():
    teacher = of_family("Marian")
    keep = {"encoder": "first", "decoder": [-1, 0]}
    student = from_teacher(teacher, {"encoder": 2}, keep)
    for part, numbers in (("encoder", [0, 1]), ("decoder", [3, 0])):
        layers = zip(student.get_submodule(f"model.{part}.layers"), numbers, strict=True)
        for layer, number in layers:
            original = teacher.get_submodule(f"model.{part}.layers.{number}").state_dict()
            assert all(torch.equal(t, original[n]) for n, t in layer.state_dict().items())


def test_the_first_layer_of_a_student_of_t5_gets_the_bias_of_positions():
    teacher = of_family("T5")
    student = from_teacher(teacher, keep={"encoder": [3, 0], "decoder": [2]})
    bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    for path in (f"encoder.{bias}", f"decoder.{bias}"):
        assert torch.equal(student.get_parameter(path), teacher.get_parameter(path))
    new = student.encoder.block[1].layer[0].SelfAttention.q.weight
    assert torch.equal(new, teacher.encoder.block[0].layer[0].SelfAttention.q.weight)
    assert student.lm_head.weight is student.encoder.embed_tokens.weight is student.shared.weight
    assert student.config.decoder_start_token_id == teacher.config.decoder_start_token_id


@pytest.mark.parametrize("name", ["T5", "Whisper"])
def test_a_student_that_writes_does_so_by_the_settings_of_its_teacher(name):
    teacher = of_family(name)
    teacher.generation_config.max_new_tokens = 3
    student = from_teacher(teacher, layers=1)
    assert student.generation_config.to_dict() == teacher.generation_config.to_dict()
    assert student.generation_config is not teacher.generation_config


def test_what_a_class_does_not_train_stays_as_it_is():
    student = from_teacher(of_family("Marian"), layers=1)
    frozen = [name for name, p in student.named_parameters() if not p.requires_grad]
    assert frozen == [f"model.{part}.embed_positions.weight" for part in ("encoder", "decoder")]


def test_a_model_that_runs_one_layer_many_times_runs_it_less_often():
    teacher = of_family("ALBERT")
    student = from_teacher(teacher, layers=1)
    weights = teacher.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    # The same weights, run less often, are another model.
    assert fingerprint(student) != fingerprint(teacher)
    assert student.config.num_hidden_layers == 1
    batch = {"input_ids": IDS, "output_hidden_states": True}
    with torch.no_grad():
        ours, theirs = student.eval()(**batch), teacher(**batch)
    assert torch.equal(ours.hidden_states[-1], theirs.hidden_states[1])


def test_stages_are_cut_one_by_one():
    teacher = of_family("ConvNeXt")
    student = from_teacher(teacher, [2, 1, 3, 2], "first")
    assert student.config.depths == [2, 1, 3, 2]
    listed = from_teacher(teacher, None, [[0, 1], [0], [0, 1, 2], [0, 1]])
    assert fingerprint(listed) == fingerprint(student)


@pytest.mark.parametrize(
    ("name", "keep", "found"),
    [
        ("ModernBERT", "last", [0, 3]),
        ("ModernBERT", "uniform", [0, 3]),
        ("ModernBERT", "first", [0, 1]),
        ("BERT", "last", [2, 3]),
    ],
)
def test_a_first_layer_without_its_like_is_always_kept(name, keep, found):
    teacher = of_family(name)
    student = from_teacher(teacher, 2, keep)
    (path,) = layer_stacks(teacher)[0].paths[0]
    for layer, number in zip(student.get_submodule(path), found, strict=True):
        original = teacher.get_submodule(f"{path}.{number}").state_dict()
        assert all(torch.equal(t, original[n]) for n, t in layer.state_dict().items())


CUT = "say how many of each to keep, as in student.layers=[1,1,2,1]"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Swin", {"layers": 2}, f"has 4 stages of 2, 2, 4, 2 layers: {CUT}"),
        ("Swin", {"layers": [1, 1]}, rf"{CUT}.*got layers=[1, 1]"),
        ("Swin", {"layers": [1, 1, 5, 1]}, "`layers[2]` must be from 1 to 4, as the teacher has"),
        ("Swin", {"layers": {"encoder": 2}}, "leave the name out, as in student.layers=2"),
        (
            "ResNet",
            {"keep": [[0], [1], [0], [0]]},
            "The layers of ResNetForImageClassification are",
        ),
        ("T5", {"layers": 5}, "`layers.encoder` must be from 1 to 4, as the teacher has, got 5"),
        ("T5", {"layers": {"decoder": 0}}, "`layers.decoder` must be from 1 to 4"),
        (
            "T5",
            {"layers": {"decodr": 2}},
            "names decodr, and T5ForConditionalGeneration has encoder 4 layers and decoder 4 "
            "layers: name encoder or decoder, as in student.layers={encoder: 1}",
        ),
        ("T5", {}, "`layers.encoder` says how many of the teacher's 4 layers to keep"),
        ("T5", {"keep": [0, 1]}, "student.keep={encoder: [0], decoder: [0]}"),
        ("BERT", {"layers": [1, 2]}, "and no stages. Numbers of layers go in student.keep"),
        ("BERT", {"layers": {"encoder": 2}}, "4 layers in one list: leave the name out"),
        ("ALBERT", {"keep": [0]}, "runs the same layer 4 times, so that `keep` can list none"),
        ("ALBERT", {"layers": 5}, "`layers` must be from 1 to 4"),
        ("ModernBERT", {"keep": [1, 3]}, "not alike, so [1, 3] cannot be kept alone"),
    ],
)
def test_a_choice_that_does_not_fit_the_model_says_what_it_has(name, options, words):
    with pytest.raises(ValueError) as caught:
        from_teacher(of_family(name), **options)
    assert all(part in str(caught.value) for part in words.split(".*"))


def test_a_model_whose_layers_no_field_counts_is_refused():
    class Fixed(BertForSequenceClassification):
        def __init__(self, config):
            config = copy.deepcopy(config)
            config.num_hidden_layers = 2
            super().__init__(config)

    with pytest.raises(ValueError, match="No field of the configuration of Fixed counts a list"):
        from_teacher(Fixed(bert(2, 16).config), layers=1)


def test_a_list_that_the_configuration_does_not_count_is_left_alone():
    teacher, _ = build("bert")
    teacher.more = nn.ModuleList(nn.Linear(1, 1) for _ in range(LAYERS))
    assert [stack.paths for stack in layer_stacks(teacher)] == [(("bert.encoder.layer",),)]


@pytest.mark.parametrize(
    ("model", "kind", "fields", "names"),
    [
        ("Wav2Vec2ForSequenceClassification", "wav2vec2", SIZES, [""]),
        (
            "Speech2TextForConditionalGeneration",
            "speech_to_text",
            {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "vocab_size": 60},
            ["encoder", "decoder"],
        ),
    ],
)
def test_layers_that_only_read_a_sound_are_not_counted(model, kind, fields, names):
    config = AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        teacher = getattr(transformers, model)(config)
    stacks = layer_stacks(teacher)
    assert [stack.name for stack in stacks] == names
    assert not any("conv" in path for stack in stacks for path in stack.paths[0])


def test_several_lists_that_one_field_counts_are_cut_together():
    config = AutoConfig.for_model("xlm", vocab_size=60, emb_dim=16, n_layers=4, n_heads=2)
    config.max_position_embeddings = 32
    teacher = AutoModelForSequenceClassification.from_config(config).eval()
    (stack,) = layer_stacks(teacher)
    assert len(stack.paths[0]) == 4
    student = from_teacher(teacher, layers=2)
    assert len(student.transformer.attentions) == len(student.transformer.ffns) == 2
    for path in stack.paths[0]:
        ours, theirs = student.get_submodule(path), teacher.get_submodule(path)
        for layer, number in zip(ours, [1, 3], strict=True):
            original = theirs[number].state_dict()
            assert all(torch.equal(t, original[n]) for n, t in layer.state_dict().items())


def test_layers_that_are_not_alike_are_refused():
    teacher, _ = build("bert")
    teacher.bert.encoder.layer[3].extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"not alike, so \[0, 3\] .*layer\.1\.extra\.weight"):
        from_teacher(teacher, keep=[0, 3])


def test_lists_inside_a_layer_are_not_taken_for_the_layers():
    teacher, _ = build("bert")
    for layer in teacher.bert.encoder.layer:
        layer.experts = nn.ModuleList(nn.Identity() for _ in range(LAYERS))
    student = from_teacher(teacher, layers=2)
    assert len(student.bert.encoder.layer) == 2

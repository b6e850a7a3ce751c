"""A model may be compiled, scripted, wrapped, or raise in its getters; it is used as it is."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from test_batch import LABELS, Net, X
from tiny import bert, gpt2, loader, text_batches, trainer
from torch import nn
from torch.testing import assert_close

from lightning_distill import distill, DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.models.capture import capture, read
from lightning_distill.models.configuration import attention, label_names, set_pad_token
from lightning_distill.models.embeddings import (
    generates,
    input_embeddings,
    output_embeddings,
    vocabulary_size,
)
from lightning_distill.models.freeze import freeze
from lightning_distill.models.head import linear_head
from lightning_distill.models.inputs import call_model, model_inputs
from lightning_distill.models.signature import accepts, signature
from lightning_distill.models.source import Source
from lightning_distill.models.submodules import submodules, unwrapped


class Reader(nn.Module):
    """Reads batches as text models do, has a configuration, and takes little time to compile."""

    def __init__(self, width=4, layers=1, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.words = nn.Embedding(60, width)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
            self.head = nn.Linear(width, 3)
        self.config = SimpleNamespace(id2label={0: "a", 1: "b", 2: "c"}, use_cache=False)

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, output_attentions=None):
        hidden = self.words(input_ids)
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        return {"logits": self.head((hidden * attention_mask[..., None]).mean(1))}


class Wrapper(nn.Module):
    """Hands on what it is given, as wrappers of one's own do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def eagerly_compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = {"compile": eagerly_compiled, "DataParallel": nn.DataParallel, "own": Wrapper}
WRAPPERS["two"] = lambda model: Wrapper(nn.DataParallel(model))


@pytest.fixture(autouse=True)
def fresh():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapped_model_is_given_what_the_model_takes(wrap):
    plain = Reader()
    model, batch = wrap(plain), text_batches(1)[0]
    given = model_inputs(batch, model)
    assert set(given) == {"input_ids", "attention_mask"}
    assert signature(model) == signature(plain) and accepts(model, "output_attentions")
    assert label_names(model) == plain.config.id2label
    assert input_embeddings(model) is plain.get_input_embeddings() and vocabulary_size(model) == 60
    assert_close(call_model(model, given, {}), plain(**given))


@pytest.mark.parametrize("wrap", [eagerly_compiled, nn.DataParallel])
def test_a_wrapped_models_layers_have_the_paths_of_the_model(wrap):
    plain, batch = Reader(), text_batches(1)[0]
    model = wrap(plain)
    assert unwrapped(model) is plain and list(submodules(model)) == list(submodules(plain))
    source = Source.parse("student.layer:layers.0")
    found = []
    for one in (plain, model):
        with capture(one, [source]) as captured:
            outputs = call_model(one, model_inputs(batch, one), {})
        found.append(read(source, outputs, captured))
    assert_close(*found)


def test_a_compiled_student_is_trained_as_a_plain_one(tmp_path):
    found = []
    for wrap in (lambda model: model, eagerly_compiled):
        student, data = wrap(Reader()), loader(text_batches(2))
        distill(student, Reader(seed=1), data, trainer=trainer(tmp_path))
        found.append({n.removeprefix("_orig_mod."): p for n, p in student.named_parameters()})
    assert_close(found[1], found[0])


def scripted():
    return torch.jit.script(Net().eval())


def traced():
    return torch.jit.trace(Net().eval(), example_kwarg_inputs={"x": X})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [scripted, traced])
@pytest.mark.parametrize("batch", [(X, LABELS), {"x": X, "labels": LABELS}], ids=["pair", "dict"])
def test_torchscript_teaches(tmp_path, make, batch):
    teacher = make()
    assert signature(teacher).names == ("x",)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    student = Net()
    start = copy.deepcopy(student.state_dict())
    distill(student, teacher, loader([batch]), trainer=trainer(tmp_path))
    assert not torch.equal(student.layer.weight, start["layer.weight"])
    assert_close(dict(teacher.named_parameters()), before)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_a_signature_is_that_of_the_forward_that_the_model_has_now():
    class Plain(nn.Module):
        def forward(self, x, mask=None):
            return x

    class Other(Plain):
        def forward(self, x, *, scale, **options):
            return x

    class Starred(nn.Module):
        def forward(*everything, y=1):
            return everything[1]

    first, second = Plain(), Plain()
    assert signature(first).names == signature(second).names == ("x", "mask")
    first.forward = lambda ids: ids
    assert signature(first).names == ("ids",) and signature(second).names == ("x", "mask")
    other = signature(Other())
    assert other.names == ("x", "scale") and other.positional == ("x",)
    assert other.required == {"x", "scale"} and other.takes_any
    assert signature(Starred()).names == ("y",)
    Plain.forward = lambda self, z: z
    assert signature(second).names == ("z",)


@pytest.mark.filterwarnings("ignore")
def test_layers_of_torchscript_are_refused():
    inputs = {"student": "student.layer:layer", "teacher": "teacher.layer:layer"}
    module = DistillationModule(Net(), scripted(), Objective({"a": Term(Hint(), inputs)}))
    with pytest.raises(ValueError, match="teacher is TorchScript, which runs no hooks, so that"):
        module.prepare((X, LABELS))


class Refusing(hf.PreTrainedModel):
    """Of transformers, and with no names for its embeddings."""

    config_class = hf.PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.e, self.head = nn.Embedding(60, 4), nn.Linear(4, 3)

    def forward(self, input_ids):
        return {"logits": self.head(self.e(input_ids).mean(1))}

    def get_output_embeddings(self):
        raise AttributeError("no head of tokens here")


def test_getters_that_raise_answer_nothing(tmp_path):
    model = Refusing(hf.PretrainedConfig(num_labels=3))
    with pytest.raises(NotImplementedError):
        model.get_input_embeddings()
    assert input_embeddings(model) is output_embeddings(model) is vocabulary_size(model) is None

    def refuse():
        raise RuntimeError("nobody knows")

    model.generate = model.can_generate = refuse
    assert generates(model) and linear_head(model) is None
    distill(model, bert(1, 8), loader(text_batches(1)), trainer=trainer(tmp_path))


T5 = {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
T5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "dropout_rate": 0.0}
BART = {"vocab_size": 40, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8}
BART |= {"decoder_ffn_dim": 8, "max_position_embeddings": 32, "pad_token_id": 1, "dropout": 0.0}


def encoder_decoder(name):
    torch.manual_seed(0)
    if name == "t5":
        return hf.T5ForConditionalGeneration(hf.T5Config(**T5)).eval()
    return hf.BartForConditionalGeneration(hf.BartConfig(**BART)).eval()


def translation():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40, (3, 6), generator=generator)
    labels = torch.randint(3, 40, (3, 5), generator=generator)
    labels[1, 3:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_decoders_input_is_made_of_the_labels(name):
    model, batch = encoder_decoder(name), translation()
    given = model_inputs(batch, model)
    of_decoder = {"decoder_input_ids", "decoder_attention_mask"}
    assert set(given) == {"input_ids", "attention_mask", *of_decoder}
    outputs = call_model(model, given, {})
    # transformers itself, which makes them of the labels too.
    there = batch["labels"] != -100
    assert_close(outputs.logits[there], model(**batch).logits[there])
    assert outputs.loss is None
    own = batch | {"decoder_input_ids": torch.full((3, 4), 5)}
    assert model_inputs(own, model)["decoder_input_ids"] is own["decoder_input_ids"]


def test_a_decoder_without_that_method_is_given_the_labels(monkeypatch):
    method = "prepare_decoder_input_ids_from_labels"
    monkeypatch.delattr(hf.BartForConditionalGeneration, method)
    model, batch = encoder_decoder("bart"), translation()
    found = model_inputs(batch, model)
    # As that of Whisper: they begin with the token that its configuration names.
    assert found["decoder_input_ids"][:, 0].tolist() == [2, 2, 2] and "labels" not in found
    model.config.decoder_start_token_id = None
    assert model_inputs(batch, model)["labels"] is batch["labels"]


def test_labels_of_rows_are_no_decoders_input():
    config = hf.BartConfig(**BART, num_labels=3, eos_token_id=2)
    model = hf.BartForSequenceClassification(config)
    assert "decoder_input_ids" not in model_inputs(text_batches(1)[0], model)


def test_encoder_decoders_are_distilled(tmp_path):
    student = encoder_decoder("t5")
    with torch.no_grad():
        teacher = encoder_decoder("t5")
        teacher.shared.weight.mul_(-1)
    before = copy.deepcopy(student.state_dict())
    mask = Source("batch", "output", "labels", process=lambda labels: labels != -100)
    inputs = {"student": "student.logits", "teacher": "teacher.logits", "mask": mask}
    objective = Objective({"soft_target": Term(SoftTarget(), inputs)})
    distill(student, teacher, loader([translation()]), objective, trainer(tmp_path))
    assert any(not torch.equal(before[n], v) for n, v in student.state_dict().items())


def test_the_padding_that_is_missing_is_named():
    config = gpt2(1, 8).config
    model = hf.GPT2ForSequenceClassification(config)
    model.config.pad_token_id = None
    batch = {"input_ids": torch.randint(1, 40, (2, 5)), "labels": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"GPT2ForSequenceClassification has no padding token"):
        call_model(model, model_inputs(batch, model), {})
    set_pad_token(model, 7)
    assert call_model(model, model_inputs(batch, model), {}).logits.shape == (2, 2)


class Tuple(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(4, width) for width in widths)

    def forward(self, x):
        return tuple(part(x) for part in self.parts)


LOGITS = Source.parse("student.logits")


@pytest.mark.parametrize("widths", [(5, 3), (3, 5)])
def test_a_tuple_of_which_it_is_not_clear_what_the_logits_are_is_refused(widths):
    with pytest.raises(ValueError, match="not clear which of them are the logits") as info:
        read(LOGITS, Tuple(*widths)(X), {})
    assert 'Return a dict, as in {"logits": ...}, or override student_forward' in str(info.value)
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    module = DistillationModule(Tuple(*widths), None, Objective({"a": Term(HardLabel(), inputs)}))
    with pytest.raises(ValueError, match="not clear which"):
        module.prepare((X, LABELS))


def test_the_way_out_works():
    class Said(DistillationModule):
        def student_forward(self, batch, **options):
            return {"logits": super().student_forward(batch, **options)[1]}

    inputs = {"student": "student.logits", "labels": "batch.labels"}
    module = Said(Tuple(5, 3), None, Objective({"a": Term(HardLabel(), inputs)}))
    module.prepare((X, LABELS))


@pytest.mark.parametrize(
    "first", [torch.tensor(2.0), torch.tensor([1, 2, 3]), None, (X,)], ids=["loss", "ids", "-", "t"]
)
def test_a_tuple_whose_first_entry_is_no_logits_is_refused(first):
    with pytest.raises(ValueError, match=r"whose first entry \(.*\) is no logits"):
        read(LOGITS, (first, X), {})


def test_other_tuples_start_with_the_logits():
    logits = torch.randn(3, 2)
    for rest in ([], [(X, X)], [torch.randn(3, 7, 2)], [torch.randn(3, 2)], [None]):
        assert read(LOGITS, (logits, *rest), {}) is logits


def test_what_has_no_public_name_is_still_there():
    # transformers: the implementation of attention that a model was loaded with.
    assert attention(bert(1, 8)) in ("sdpa", "eager")
    # torch: settings of the compiler, see `readable`.
    import torch._dynamo.config
    import torch._functorch.config

    assert torch._dynamo.config.skip_nnmodule_hook_guards in (True, False)
    assert torch._functorch.config.donated_buffer in (True, False)
    # torch: where torch.compile keeps the model, and so the names in a checkpoint.
    assert list(dict(eagerly_compiled(Net()).named_children())) == ["_orig_mod"]


def test_models_of_tokens_have_a_head():
    own = type("Mine", (hf.GPT2LMHeadModel,), {})(gpt2(1, 8).config)
    assert linear_head(own) == "lm_head" and generates(own)
    masked = hf.BertForMaskedLM(bert(1, 8).config)
    assert linear_head(masked) == "cls.predictions.decoder" and not generates(masked)
    assert linear_head(encoder_decoder("t5")) == "lm_head" and linear_head(bert(1, 8)) is None


def test_freezing_leaves_nothing_to_train():
    model = Net()
    freeze(model)
    assert not model.training and not any(p.requires_grad for p in model.parameters())

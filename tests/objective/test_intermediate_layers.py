import pytest
import torch
import torch.nn.functional as F
from tiny import bert, loader, text_batches, trainer
from torch.testing import assert_close

from lightning_distill import DistillationModule, IntermediateLayers, Objective

S0, T0, T1 = (
    "bert.encoder.layer.0.output",
    "bert.encoder.layer.0.output",
    "bert.encoder.layer.1.output",
)


def outputs(model, path, batch):
    found = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, a, o: found.append(o))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    handle.remove()
    return found[0], logits


def value(term, student, teacher, batch):
    made = DistillationModule(student.eval(), teacher, Objective({"layers": term}))
    made.prepare(batch)
    return made.objective(made.read_sources(batch)[0])["layers"]


@pytest.fixture
def pair():
    return bert(1, 8, seed=1).eval(), bert(2, 8, seed=2).eval()


@pytest.fixture
def batch():
    return text_batches(1)[0]


def first(x):
    return x[0] if isinstance(x, tuple) else x


@pytest.mark.parametrize(
    ("mapping", "student_path", "teacher_path"),
    [
        (S0, S0, S0),
        ([S0], S0, S0),
        ([S0, T1], S0, T1),
        ([[S0], [T1]], S0, T1),
        ([(S0,), (T1,)], S0, T1),
        ([(S0, ""), (T1, "")], S0, T1),
        ([(S0, first), (T1, first)], S0, T1),
    ],
)
def test_every_form_of_a_mapping(pair, batch, mapping, student_path, teacher_path):
    student, teacher = pair
    found = value(IntermediateLayers([mapping], mask=None), student, teacher, batch)
    s, _ = outputs(student, student_path, batch)
    t, _ = outputs(teacher, teacher_path, batch)
    assert_close(found, ((s - t) ** 2).mean())


@pytest.mark.parametrize("process", ["1", 1])
def test_an_index_takes_an_item_of_a_tuple(batch, process):
    student, teacher = bert(1, 8, seed=1), bert(2, 8, seed=2).eval()
    item = [["bert", process]]
    found = value(IntermediateLayers([item]), student, teacher, batch)
    with torch.no_grad():
        pooled = [
            m.bert(batch["input_ids"], batch["attention_mask"]).pooler_output
            for m in (student, teacher)
        ]
    assert_close(found, ((pooled[0] - pooled[1]) ** 2).mean())


def test_a_key_takes_an_item_of_a_dict(pair, batch):
    by_key = value(IntermediateLayers([[["bert", "pooler_output"]]]), *pair, batch)
    by_index = value(IntermediateLayers([[["bert", "1"]]]), *pair, batch)
    assert_close(by_key, by_index)


def test_the_empty_name_is_the_whole_model(pair, batch):
    student, teacher = pair
    _, s = outputs(student, S0, batch)
    _, t = outputs(teacher, S0, batch)
    assert_close(value(IntermediateLayers([[""]]), *pair, batch), ((s - t) ** 2).mean())


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("MSE", lambda s, t: ((s - t) ** 2).mean(-1)),
        ("L1", lambda s, t: (s - t).abs().mean(-1)),
        ("KL", lambda s, t: (t.softmax(-1) * (t.softmax(-1) / s.softmax(-1)).log()).sum(-1)),
        ("CE", lambda s, t: -(t.softmax(-1) * s.softmax(-1).log()).sum(-1)),
    ],
)
def test_each_loss_type_over_the_tokens_that_count(pair, batch, kind, definition):
    student, teacher = pair
    found = value(IntermediateLayers([[S0, T1]], loss_types=[kind]), student, teacher, batch)
    s, _ = outputs(student, S0, batch)
    t, _ = outputs(teacher, T1, batch)
    kept = batch["attention_mask"].bool()
    assert_close(found, definition(s.double(), t.double())[kept].mean().float())


def test_compat_inc_averages_over_all_elements_and_padding(pair, batch):
    student, teacher = pair
    term = IntermediateLayers([[S0, T1], [S0, T1]], loss_types=["KL", "MSE"], compat="inc")
    s, _ = outputs(student, S0, batch)
    t, _ = outputs(teacher, T1, batch)
    kl = F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="mean")
    expected = 0.5 * kl + 0.5 * ((s - t) ** 2).mean()
    assert_close(value(term, student, teacher, batch), expected)


def test_one_layer_to_many_and_back_with_weights(pair, batch):
    student, teacher = pair
    term = IntermediateLayers([[S0, T0], [S0, T1]], loss_weight_ratio=[0.7, 2.0], mask=None)
    s, _ = outputs(student, S0, batch)
    t0, _ = outputs(teacher, T0, batch)
    t1, _ = outputs(teacher, T1, batch)
    expected = 0.7 * ((s - t0) ** 2).mean() + 2.0 * ((s - t1) ** 2).mean()
    assert_close(value(term, student, teacher, batch), expected)


def test_the_origin_loss_is_added_once(pair, batch):
    student, teacher = pair
    without = value(IntermediateLayers([[S0, T1]]), student, teacher, batch)
    with_it = value(IntermediateLayers([[S0, T1]], add_origin_loss=True), student, teacher, batch)
    _, logits = outputs(student, S0, batch)
    assert_close(with_it - without, F.cross_entropy(logits, batch["labels"]))


def test_two_mappings_of_one_layer_have_an_adapter_each(tmp_path):
    student, teacher = bert(1, 8), bert(2, 16)
    term = IntermediateLayers([[S0, T0], [S0, T1]])
    made = DistillationModule(student, teacher, Objective({"layers": term}))
    data = text_batches(3)
    made.prepare(data[0])
    before = [p.detach().clone() for p in term.parameters()]
    assert [tuple(p.shape) for p in before] == [(16, 8), (16,)] * 2
    trainer(tmp_path).fit(made, loader(data), loader(data))
    assert all(not torch.equal(b, p) for b, p in zip(before, term.parameters(), strict=True))


def test_it_works_in_evaluation_and_twice_in_one_process(tmp_path):
    data = text_batches(2)
    fits = []
    for seed in (1, 2):
        made = DistillationModule(
            bert(1, 8, seed=seed),
            bert(2, 16),
            Objective({"layers": IntermediateLayers([[S0, T1]])}),
        )
        made.prepare(data[0])
        fits.append(made)
    found = [m.eval().objective(m.read_sources(data[0])[0])["loss"].item() for m in fits]
    again = fits[0].objective(fits[0].read_sources(data[0])[0])["loss"].item()
    assert found[0] == again != found[1]
    fit = trainer(tmp_path)
    fit.fit(fits[0], loader(data), loader(data))
    assert "val/layers" in fit.callback_metrics


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"layer_mappings": []}, "`layer_mappings` is empty"),
        ({"layer_mappings": [["a", "b", "c"]]}, r"\[student, teacher\]"),
        ({"layer_mappings": [[["a", "1", "2"]]]}, "a name or"),
        ({"layer_mappings": [[["a", 1.5]]]}, "an index, a key or a callable"),
        ({"layer_mappings": [["a"]], "loss_types": ["MSE", "L1"]}, "one entry for each of the 1"),
        ({"layer_mappings": [["a"]], "loss_types": ["MES"]}, "Did you mean MSE"),
        ({"layer_mappings": [["a"]], "loss_weight_ratio": [0.5, 0.5]}, "`loss_weight_ratio` needs"),
        ({"layer_mappings": [["a"]], "loss_weight_ratio": [-1.0]}, "not negative"),
        ({"layer_mappings": [["a"]], "compat": "itrex"}, "`compat` must be null or 'inc'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        IntermediateLayers(**arguments)


def test_a_wrong_layer_name_is_refused_with_the_nearest(pair, batch):
    with pytest.raises(ValueError, match=r"Nearest: bert.encoder.layer.0.output"):
        value(IntermediateLayers([["bert.encoder.layer.0.ouput"]]), *pair, batch)


def test_layers_of_unequal_rank_are_refused_by_name(pair, batch):
    with pytest.raises(
        ValueError,
        match=r"'layers_0' \(student=student.layer:bert.encoder.layer.0.output, teacher=teacher",
    ):
        value(IntermediateLayers([[S0, "classifier"]]), *pair, batch)


def test_layers_that_all_weigh_nothing_are_refused():
    with pytest.raises(ValueError, match="Every `loss_weight_ratio` of the layers is 0"):
        IntermediateLayers(["a"], loss_weight_ratio=[0.0])

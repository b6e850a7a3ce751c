import pytest
import torch
from tiny import bert, text_batches
from torch import nn

from lightning_distill.models.capture import capture, check_layers, forward_options, read
from lightning_distill.models.source import matching, Source


@pytest.mark.parametrize(
    "text",
    [
        "student.logits",
        "teacher.hidden_states[-1]",
        "student.hidden_states[1:]",
        "student.layer:bert.encoder.layer.0.output",
        "student.layer:bert.encoder.layer.*",
        "student.layer:bert.pooler[0]",
        "student.layer:pooler[pooled]",
        "teacher.layer_input:classifier",
        "batch.labels",
        "batch.teacher.attention_mask",
    ],
)
def test_a_source_is_printed_as_it_is_written(text):
    assert str(Source.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("logits", "starts with 'student.'"),
        ("studnet.logits", "Did you mean 'student'"),
        ("student.", "names no tensor"),
        ("batch.layer:x", "batch has no layers"),
        ("student.hidden_states[]", "empty brackets"),
        ("student.hidden_states[1", "one pair, at its end"),
        ("student.hidden_*", "patterns are for layers"),
        ("student.layer:a.*[1:]", "use one of them"),
    ],
)
def test_a_malformed_source_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Source.parse(text)


def run(model, *texts):
    sources = [Source.parse(text) for text in texts]
    batch = text_batches(1)[0]
    with torch.no_grad(), capture(model, sources) as captured:
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            **forward_options(model, sources),
        )
    return [read(source, outputs, captured) for source in sources]


def test_hidden_states_equal_what_the_layers_return():
    model = bert(2, 8).eval()
    by_index, by_path, by_pattern, many = run(
        model,
        "student.hidden_states[1]",
        "student.layer:bert.encoder.layer.0",
        "student.layer:bert.encoder.layer.*",
        "student.hidden_states[1:]",
    )
    torch.testing.assert_close(by_index, by_path)
    torch.testing.assert_close(by_pattern[0], by_path)
    assert len(by_pattern) == len(many) == 2
    torch.testing.assert_close(by_pattern[1], many[1])


def test_the_input_of_the_head_gives_the_logits():
    model = bert(1, 8).eval()
    head, logits, whole = run(
        model, "student.layer_input:classifier", "student.logits", "student.layer:"
    )
    torch.testing.assert_close(model.classifier(head), logits)
    torch.testing.assert_close(whole, logits)


def test_only_what_is_asked_for_is_captured():
    model = bert(2, 8)
    logits = [Source.parse("student.logits")]
    assert forward_options(model, logits) == {}
    with capture(model, logits):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_gone_after_an_error():
    model = bert(1, 8)
    with pytest.raises(RuntimeError), capture(model, [Source.parse("student.layer:bert")]):
        raise RuntimeError
    assert not any(m._forward_hooks for m in model.modules())


def test_two_captures_do_not_meet():
    one, two = nn.Linear(2, 3), nn.Linear(2, 3)
    source = Source.parse("student.layer:")
    x = torch.ones(1, 2)
    with capture(one, [source]) as first, capture(two, [source]) as second:
        one(x)
        two(x)
    assert not torch.equal(first["layer:"], second["layer:"])


def test_a_wrong_path_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Nearest: .*bert\.encoder\.layer\.0\.output"):
        check_layers(bert(1, 8), [Source.parse("student.layer:bert.encoder.layers.0.output")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("student.logit", "Nearest: logits"),
        ("student.hidden_states[9]", "there are 3, numbered 0 to 2"),
        ("student.logits[a]", "no item 'a'"),
        ("student.layer:bert.pooler[x]", "no item 'x'"),
        ("student.hidden_states", "hidden_states is a|not a tensor|first"),
    ],
)
def test_what_the_outputs_do_not_have_is_refused(text, words):
    if text == "student.hidden_states":
        # A tuple stands for its first tensor, here the embeddings.
        assert run(bert(2, 8), text)[0].shape == (4, 7, 8)
        return
    with pytest.raises(ValueError, match=words):
        run(bert(2, 8), text)


def test_a_plain_tensor_is_the_logits():
    x = torch.ones(2, 3)
    assert read(Source.parse("student.logits"), x, {}) is x
    with pytest.raises(ValueError, match="returns one tensor"):
        read(Source.parse("student.hidden_states[0]"), x, {})


def test_labels_are_the_second_of_a_pair():
    labels = torch.ones(2)
    assert read(Source.parse("batch.labels"), [torch.zeros(2), labels], {}) is labels


def test_a_star_stands_for_one_part_of_a_path():
    names = ["a.0", "a.0.b", "a.1", "a.10", "b.0"]
    assert matching("a.*", names) == ["a.0", "a.1", "a.10"]


class Backwards(nn.Module):
    """Runs its second layer first."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 4), nn.Linear(2, 3), nn.Identity()])

    def forward(self, x):
        return self.blocks[2](self.blocks[0](self.blocks[1](x)))


@pytest.mark.parametrize(
    ("name", "widths"),
    [("blocks.*", [4, 3, 4]), ("blocks.1,blocks.0", [3, 4]), ("blocks.1, blocks.*", [3, 4, 4])],
)
def test_several_layers_come_in_the_order_in_which_they_are_named(name, widths):
    model, source = Backwards(), Source.parse(f"student.layer:{name}")
    assert source.is_many
    check_layers(model, [source])
    with capture(model, [source]) as captured:
        outputs = model(torch.randn(5, 2))
    assert [t.shape[-1] for t in read(source, outputs, captured)] == widths
    names = [n for n, _ in model.named_modules()]
    singles = source.singles(len(widths), names)
    assert [read(s, outputs, captured).shape[-1] for s in singles] == widths


def test_each_name_of_a_list_must_exist():
    with pytest.raises(ValueError, match="has no submodule 'blocks.7'. Nearest: blocks"):
        check_layers(Backwards(), [Source.parse("student.layer:blocks.1,blocks.7")])

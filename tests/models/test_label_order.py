import pytest
import torch
from hypothesis import given, strategies as st
from transformers.modeling_outputs import SequenceClassifierOutput

from lightning_distill.models.label_order import label_order, reordered

NAMES = ["negative", "neutral", "positive", "mixed"]


@given(st.permutations(NAMES), st.permutations(NAMES))
def test_the_order_brings_the_teachers_names_into_the_students_order(student, teacher):
    order = label_order(student, teacher)
    if student == teacher:
        assert order is None
    else:
        assert [teacher[i] for i in order] == list(student)


def test_an_id2label_counts_in_the_order_of_its_numbers():
    assert label_order(["a", "b", "c"], {2: "a", 0: "b", 1: "c"}) == [2, 0, 1]


def test_case_and_spaces_do_not_count():
    assert label_order(["Negative ", "POSITIVE"], ["negative", "positive"]) is None
    assert label_order(["Negative ", "POSITIVE"], ["positive", "negative"]) == [1, 0]


def test_case_counts_where_names_differ_by_it_alone():
    assert label_order(["a", "A"], ["A", "a"]) == [1, 0]


@pytest.mark.parametrize("generic", [["LABEL_0", "LABEL_1"], ["label_0", "label_1"], ["0", "1"]])
def test_generic_names_say_nothing_about_the_order(generic):
    assert label_order(generic, ["pos", "neg"]) is None
    assert label_order(["pos", "neg"], dict(enumerate(generic))) is None


@pytest.mark.parametrize("form", ["{}", "LABEL_{}"])
def test_numbers_in_another_order_on_both_sides_are_names(form):
    ordered, swapped = [form.format(i) for i in (0, 1)], [form.format(i) for i in (1, 0)]
    assert label_order(ordered, swapped) == [1, 0]
    assert label_order(swapped, ordered) == [1, 0]


def test_nothing_is_known_of_a_model_without_names():
    assert label_order(None, NAMES) is None
    assert label_order(NAMES, None) is None


def test_one_number_needs_no_order():
    assert label_order(["score"], ["LABEL_0"]) is None
    assert label_order(["score"], ["rating"]) is None


def test_another_number_of_labels_is_refused_even_with_generic_names():
    words = r"2 labels \(LABEL_0, LABEL_1\), the teacher 3 \(a, b, c\).*num_labels"
    with pytest.raises(ValueError, match=words):
        label_order(["LABEL_0", "LABEL_1"], ["a", "b", "c"])


def test_other_names_are_refused_and_named():
    words = r"\(a, b, c\) are not the teacher's \(a, b, d\): c against d\. .*id2label.*label_names"
    with pytest.raises(ValueError, match=words):
        label_order(["a", "b", "c"], ["a", "b", "d"])


def test_many_names_are_cut_short_but_the_odd_one_is_named():
    student, teacher = [f"n{i}" for i in range(20)], [f"n{i}" for i in range(20)]
    teacher[17] = "odd"
    with pytest.raises(ValueError, match=r"n5, \.\.\.\).*: n17 against odd"):
        label_order(student, teacher)


def test_a_name_given_twice_is_refused():
    with pytest.raises(ValueError, match="are not the teacher's"):
        label_order(["a", "a", "b"], ["a", "b", "a"])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: logits,
        lambda logits: {"logits": logits},
        lambda logits: SequenceClassifierOutput(logits=logits),
        lambda logits: (logits, "states"),
    ],
    ids=["tensor", "dict", "model output", "tuple"],
)
def test_the_logits_of_any_output_are_reordered(wrap):
    outputs = reordered(wrap(torch.tensor([[10.0, 20.0, 30.0]])), [2, 0, 1])
    if isinstance(outputs, tuple):
        assert outputs[1] == "states"
    logits = (
        outputs
        if isinstance(outputs, torch.Tensor)
        else outputs[0 if isinstance(outputs, tuple) else "logits"]
    )
    assert logits.tolist() == [[30.0, 10.0, 20.0]]


def test_a_model_output_agrees_with_itself_after_reordering():
    outputs = reordered(SequenceClassifierOutput(logits=torch.tensor([[1.0, 2.0]])), [1, 0])
    assert outputs.logits.tolist() == outputs["logits"].tolist() == [[2.0, 1.0]]

"""The layers of a trained student beside its teacher's."""

import json

import pytest
import torch
from tiny import bert
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.report import save_trained_layers, trained_layers

VOCABULARY = bert(1, 8).config.vocab_size


def batches(count=2, rows=12, tokens=7):
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        lengths = torch.randint(3, tokens + 1, (rows, 1), generator=draw)
        mask = (torch.arange(tokens) < lengths).long()
        ids = torch.randint(5, VOCABULARY, (rows, tokens), generator=draw)
        labels = torch.randint(2, (rows,), generator=draw)
        yield {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def module(student, teacher, **terms):
    logits = Term(nn.MSELoss(), {"input": "student.logits", "target": "teacher.logits"})
    return DistillationModule(student, teacher, Objective({"logits": logits, **terms}))


def naive(x, y):
    """Linear CKA by the covariances of single columns, float64."""
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)

    def hsic(a, b):
        return sum(
            float(a[:, i] @ b[:, j]) ** 2 for i in range(a.shape[1]) for j in range(b.shape[1])
        )

    return hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5


def test_all_layers_are_compared_over_tokens_that_count_and_pairs_of_terms_are_told(tmp_path):
    student, teacher = bert(1, 8, num_labels=2), bert(3, 16, num_labels=2)
    inputs = {"input": "student.hidden_states[-1]", "target": "teacher.hidden_states[2]"}
    hint = Term(nn.MSELoss(), inputs, adapter="linear")
    made = module(student, teacher, hint=hint)
    student.train()
    found = trained_layers(made, batches())
    assert student.training and list(found) == ["hidden_states"]
    one = found["hidden_states"]
    assert one.students == ["student.hidden_states[0]", "student.hidden_states[1]"]
    assert one.teachers == [f"teacher.hidden_states[{i}]" for i in range(4)]
    assert one.pairs == [(1, 2)]
    student.eval()
    expected = torch.zeros(2, 4)
    with torch.no_grad():
        for batch in batches():
            inputs = {n: v for n, v in batch.items() if n != "labels"}
            counted = batch["attention_mask"].bool()
            layers = [
                [x[counted] for x in m(**inputs, output_hidden_states=True).hidden_states]
                for m in (student, teacher)
            ]
            expected += torch.tensor([[naive(s, t) for t in layers[1]] for s in layers[0]]) / 2
    torch.testing.assert_close(one.cka, expected, rtol=1e-4, atol=1e-5)

    path = tmp_path / "layer_similarity.json"
    path.write_text(json.dumps({"hint": {"pairs": []}}))
    save_trained_layers(found, tmp_path)
    content = json.loads(path.read_text())
    assert set(content) == {"hint", "trained hidden_states"}
    assert content["trained hidden_states"]["cka"] == one.cka.tolist()
    assert content["trained hidden_states"]["pairs"] == [[1, 2]]


def test_layers_of_a_copy_are_alike():
    student = bert(2, 8, num_labels=2)
    teacher = bert(2, 8, num_labels=2)
    teacher.load_state_dict(student.state_dict())
    found = trained_layers(module(student, teacher), batches())["hidden_states"]
    torch.testing.assert_close(found.cka.diagonal(), torch.ones(3), atol=1e-4, rtol=0.0)
    assert found.pairs == [] and (found.cka < 1.0001).all()


class Plain(nn.Module):
    """Returns no layers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(7, 2)

    def forward(self, input_ids):
        return self.head(input_ids.float())


@pytest.mark.parametrize("which", ["student", "teacher", "nobody"])
def test_where_layers_are_not_there_nothing_is_written(which, tmp_path):
    student = Plain() if which == "student" else bert(1, 8, num_labels=2)
    teacher = {"teacher": Plain(), "nobody": None}.get(which, bert(1, 8, num_labels=2))
    terms = (
        {}
        if teacher is not None
        else {
            "labels": Term(
                nn.CrossEntropyLoss(), {"input": "student.logits", "target": "batch.labels"}
            )
        }
    )
    made = (
        module(student, teacher)
        if teacher is not None
        else DistillationModule(student, None, Objective(terms))
    )
    found = trained_layers(made, batches())
    assert found == {}
    save_trained_layers(found, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tokens_of_the_teachers_own_are_not_compared():
    made = module(bert(1, 8, num_labels=2), bert(1, 8, num_labels=2))
    own = [{**batch, "teacher": {"input_ids": batch["input_ids"]}} for batch in batches()]
    assert trained_layers(made, own) == {}

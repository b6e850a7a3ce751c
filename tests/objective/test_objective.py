import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.testing import assert_close

from lightning_distill import Objective, Term
from lightning_distill.balance import Uncertainty
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.models.source import Source
from lightning_distill.schedules import Linear

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


def values(**tensors):
    return {Source.parse(name.replace("__", ".")): tensor for name, tensor in tensors.items()}


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return values(
        student__logits=torch.randn(4, 3, requires_grad=True),
        teacher__logits=torch.randn(4, 3),
        batch__labels=torch.tensor([0, 1, 2, -100]),
    )


def test_the_loss_is_the_weighted_sum_of_the_terms(logits):
    objective = Objective(
        {
            "soft": Term(SoftTarget(2.0), LOGITS, weight=0.25),
            "hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}, 3.0),
        }
    )
    losses = objective(logits)
    student, teacher, labels = logits.values()
    soft = SoftTarget(2.0)(student, teacher)
    hard = nn.functional.cross_entropy(student, labels, ignore_index=-100)
    assert_close(losses["soft"], soft)
    assert_close(losses["hard"], hard)
    assert_close(losses["loss"], 0.25 * soft + 3.0 * hard)


def test_plain_torch_losses_are_criteria(logits):
    term = Term(nn.MSELoss(), {"input": "student.logits", "target": "teacher.logits"})
    student, teacher, _ = logits.values()
    assert_close(term(logits), ((student - teacher) ** 2).mean())


def test_weights_and_temperatures_follow_their_schedules(logits):
    temperature = Linear(1.0, 5.0)
    objective = Objective({"soft": Term(SoftTarget(temperature), LOGITS, Linear(0.0, 1.0))})
    student, teacher, _ = logits.values()
    for progress in (0.0, 0.5, 1.0):
        objective.advance(progress)
        expected = SoftTarget(1.0 + 4.0 * progress)(student, teacher)
        assert_close(objective(logits)["soft"], expected)
        assert_close(objective(logits)["loss"], progress * expected)


def test_weights_that_stay_are_told_apart_from_those_that_change():
    terms = {
        "soft": Term(SoftTarget(), LOGITS, Linear(0.0, 1.0)),
        "more": Term(SoftTarget(), LOGITS, 0.5),
    }
    assert Objective(terms).fixed_weights() == {"more": 0.5}
    assert Objective(terms, Uncertainty()).fixed_weights() == {}


def test_a_term_of_weight_zero_reads_nothing(logits):
    objective = Objective(
        {
            "hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
            "soft": Term(SoftTarget(), LOGITS, weight=0.0),
        }
    )
    assert objective.sources("teacher") == []
    assert set(objective(logits)) == {"loss", "hard"}


def layered(students: int, teachers: int, width: int = 4):
    torch.manual_seed(0)
    return {
        Source.parse("student.hidden_states[1:]"): [
            torch.randn(2, 3, width, requires_grad=True) for _ in range(students)
        ],
        Source.parse("teacher.hidden_states[1:]"): [torch.randn(2, 3, 4) for _ in range(teachers)],
    }


MANY = {"student": "student.hidden_states[1:]", "teacher": "teacher.hidden_states[1:]"}


@pytest.mark.parametrize(
    ("mapping", "pairs"),
    [
        ("uniform", [(0, 1), (1, 3)]),
        ("last", [(0, 2), (1, 3)]),
        ([[0, 3], [1, 3], [1, 0]], [(0, 3), (1, 3), (1, 0)]),
    ],
)
def test_many_layers_are_one_term_with_a_mapping(mapping, pairs):
    found = layered(2, 4)
    term = Term(Hint(), MANY, mapping=mapping)
    term.prepare(found, {"student": [], "teacher": [], "batch": []})
    students, teachers = found.values()
    singles = {
        Source.parse(f"{role}.hidden_states[{i + 1}]"): tensor
        for role, tensors in (("student", students), ("teacher", teachers))
        for i, tensor in enumerate(tensors)
    }
    expected = torch.stack([((students[s] - teachers[t]) ** 2).mean() for s, t in pairs]).mean()
    assert_close(term(singles), expected)
    assert not any(source.is_many for source in term.sources())


def test_one_pair_of_many_is_compared_alone():
    found = layered(2, 4)
    students, teachers = found.values()
    layers = {"student": [], "teacher": [], "batch": []}
    term = Term(Hint(), MANY, pair=1)
    loss = term.prepare(found, layers)
    assert_close(loss, ((students[1] - teachers[3]) ** 2).mean())
    assert term.paired == 2 and len(term.sources()) == 2
    with pytest.raises(
        ValueError, match="`pair` is 2, and the pairs of layers are numbered 0 to 1"
    ):
        Term(Hint(), MANY, pair=2).prepare(found, layers)
    with pytest.raises(ValueError, match="mapping=together has none"):
        Term(Hint(), MANY, pair=0, mapping="together")


LAST = {"student": "student.hidden_states[-1]", "teacher": "teacher.hidden_states[-1]"}


@pytest.mark.parametrize(
    ("inputs", "chosen", "words"),
    [
        (
            LAST,
            {"mapping": [[0, 12]]},
            r"mapping=\[\[0, 12\]\] .* student.hidden_states\[-1\] is one",
        ),
        (LAST, {"mapping": "every_2"}, "mapping=every_2 chooses .* or leave mapping out"),
        (LAST, {"mapping": "auto", "adapter": "linear"}, "mapping=auto chooses"),
        (LAST, {"mapping": "together"}, "mapping=together chooses"),
        (LAST, {"pair": 1}, "pair=1 chooses .* or leave pair out"),
        (LAST, {"pair": 1, "mapping": "last"}, "mapping=last pair=1 .* leave mapping and pair out"),
        (
            {**LAST, "student": "student.hidden_states[*]"},
            {"mapping": "last"},
            r"teacher.hidden_states\[-1\] is one tensor",
        ),
        ({**LAST, "teacher": "teacher.layer:a.*"}, {"mapping": "emd"}, "student.* is one tensor"),
    ],
)
def test_a_choice_among_layers_is_refused_where_one_is_named(inputs, chosen, words):
    with pytest.raises(ValueError, match=words):
        Term(Hint(), inputs, **chosen)


def test_all_layers_of_one_model_may_go_with_one_of_the_other():
    one = {**MANY, "teacher": "teacher.hidden_states[-1]"}
    students, teachers = layered(2, 1).values()
    found = {
        Source.parse(one["student"]): students,
        Source.parse(one["teacher"]): teachers[0],
    }
    for pair, expected in ((None, students), (1, students[1:])):
        loss = Term(Hint(), one, pair=pair).prepare(found, {"student": [], "teacher": []})
        assert_close(loss, torch.stack([((s - teachers[0]) ** 2).mean() for s in expected]).mean())
    # Lists of one model, without another.
    Term(Together(), one, mapping="together")


def test_a_term_counts_until_it_is_over(logits):
    hard = Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})
    objective = Objective({"soft": Term(SoftTarget(2.0), LOGITS, 3.0, until=0.6), "hard": hard})
    for progress, weight in ((0.0, 3.0), (0.59, 3.0), (0.6, 0.0), (1.0, 0.0)):
        objective.advance(progress)
        losses = objective(logits)
        assert_close(losses["loss"], weight * losses["soft"] + losses["hard"])


def test_a_slice_from_the_end_names_the_same_layers():
    source = Source.parse("student.hidden_states[-2:]")
    assert [s.item for s in source.singles(2, [])] == [-2, -1]


def test_adapters_are_built_where_widths_differ_and_only_there():
    wide = Term(Hint(), MANY, adapter="linear")
    wide.prepare(layered(2, 4, width=6), {"student": [], "teacher": [], "batch": []})
    assert [tuple(p.shape) for p in wide.adapters.parameters()] == [(4, 6), (4,)] * 2
    same = Term(Hint(), MANY, adapter="linear")
    same.prepare(layered(2, 4), {"student": [], "teacher": [], "batch": []})
    assert not list(same.adapters.parameters())


def test_an_adapter_maps_the_channels_of_a_feature_map():
    found = values(student__map=torch.randn(2, 5, 3, 3), teacher__map=torch.randn(2, 7, 3, 3))
    term = Term(nn.MSELoss(), {"input": "student.map", "target": "teacher.map"}, adapter="linear")
    term.prepare(found, {"student": [], "teacher": [], "batch": []})
    linear = term.adapters["0"].linear
    student, teacher = found.values()
    mapped = nn.functional.conv2d(student, linear.weight[:, :, None, None], linear.bias)
    assert_close(term(found), nn.functional.mse_loss(mapped, teacher))


def test_adapters_are_equal_whatever_was_drawn_before():
    weights = []
    for seed in (1, 2):
        found = layered(1, 1, width=6)
        torch.manual_seed(seed)
        term = Term(Hint(), MANY, adapter="linear")
        term.prepare(found, {"student": [], "teacher": [], "batch": []})
        weights.append(term.adapters["0"].linear.weight)
    assert_close(*weights)


class PerSample(nn.Module):
    def forward(self, student, teacher):
        return (student - teacher).sum(-1)


class Detached(nn.Module):
    def forward(self, student, teacher):
        return ((student.detach() - teacher) ** 2).mean()


class Cancelled(nn.Module):
    def forward(self, student, teacher):
        return (0 * student).sum() + teacher.square().mean()


def check(criterion, found):
    objective = Objective({"mine": Term(criterion, LOGITS)})
    student = found[Source.parse("student.logits")]
    objective.check(objective(found), [student])


@pytest.mark.parametrize("criterion", [Detached(), Cancelled()])
def test_a_term_without_a_gradient_is_an_error(criterion, logits):
    with pytest.raises(ValueError, match="'mine' has a positive weight but gives the student no"):
        check(criterion, logits)


def test_a_term_that_is_zero_already_is_no_error(logits):
    same = {
        **logits,
        Source.parse("teacher.logits"): logits[Source.parse("student.logits")].clone(),
    }
    check(SoftTarget(), same)


def test_a_term_that_is_not_finite_is_an_error(logits):
    logits[Source.parse("teacher.logits")] = torch.full((4, 3), torch.nan)
    with pytest.raises(ValueError, match="'mine' is nan on the first batch"):
        check(SoftTarget(), logits)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Term(SoftTarget(), LOGITS, weight=-1.0), "not negative, got -1"),
        (lambda: Term(SoftTarget(), LOGITS, weight=float("nan")), "must be finite"),
        (lambda: Term(SoftTarget(), LOGITS, weight="1"), "must be a number|weight"),
        (lambda: Term(SoftTarget(), {"student": "student.logits"}), "lacks teacher"),
        (
            lambda: Term(SoftTarget(), {**LOGITS, "labls": "batch.labels"}),
            "takes no argument 'labls'",
        ),
        (lambda: Term(SoftTarget(), {}), "is empty"),
        (
            lambda: Term(
                HardLabel(),
                {"student": "student.logits", "labels": "batch.labels"},
                adapter="linear",
            ),
            "needs one input of the teacher",
        ),
        (lambda: Objective({}), "no term with a positive weight"),
        (lambda: Objective({"soft": Term(SoftTarget(), LOGITS, 0.0)}), "no term with a positive"),
        (lambda: Objective({"soft": SoftTarget()}), "wrap a criterion in"),
        (lambda: Objective({"loss": Term(SoftTarget(), LOGITS)}), "other than 'loss'"),
        (lambda: Objective({"a.b": Term(SoftTarget(), LOGITS)}), "plain word"),
    ],
)
def test_what_cannot_work_is_refused_at_once(build, words):
    with pytest.raises((ValueError, TypeCheckError), match=words):
        build()


def prepare(term, found):
    Objective({"mine": term}).prepare(found, {"student": [], "teacher": [], "batch": []})


def test_the_first_batch_names_the_term_and_the_shapes():
    found = values(student__logits=torch.ones(2, 3), teacher__logits=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"(?s)'mine'.*\(2, 3\).*\(2, 4\)"):
        prepare(Term(SoftTarget(), LOGITS), found)


@pytest.mark.parametrize(
    ("student", "teacher", "words"),
    [
        ((2, 3), (2, 3, 4), "cannot change the number of dimensions"),
        ((2, 3, 4), (2, 5, 6), "maps one dimension"),
        ((2, 3), (4, 3), "maps one dimension"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(student, teacher, words):
    found = values(student__h=torch.ones(student), teacher__h=torch.ones(teacher))
    term = Term(Hint(), {"student": "student.h", "teacher": "teacher.h"}, adapter="linear")
    with pytest.raises(ValueError, match=words):
        prepare(term, found)


def test_an_unknown_adapter_is_refused():
    found = values(student__h=torch.ones(2, 3), teacher__h=torch.ones(2, 4))
    term = Term(Hint(), {"student": "student.h", "teacher": "teacher.h"}, adapter="lineal")
    with pytest.raises(ValueError, match="must be 'linear', 'map', null or a module"):
        prepare(term, found)


def test_a_criterion_that_returns_one_value_per_sample_is_refused(logits):
    with pytest.raises(ValueError, match=r"'mine'.*returns shape \(4,\); let it take the mean"):
        prepare(Term(PerSample(), LOGITS), logits)


class Stretch(nn.Module):
    """A criterion with a part that is built for what it is shown."""

    def prepare(self, student, teacher):
        self.linear = nn.Linear(student.shape[-1], teacher.shape[-1])

    def forward(self, student, teacher):
        return (self.linear(student) - teacher).square().mean()


def test_each_pair_of_layers_has_its_own_copy_of_a_criterion_with_parts_to_train():
    term = Term(Stretch(), MANY)
    found = layered(2, 4, width=6)
    torch.manual_seed(5)
    drawn = torch.rand(())
    torch.manual_seed(5)
    loss = term.prepare(found, {"student": [], "teacher": [], "batch": []})
    assert torch.rand(()) == drawn
    assert len(list(term.parameters())) == 4
    loss.backward()
    assert all(p.grad.count_nonzero() for p in term.parameters())
    again = Term(Stretch(), MANY)
    torch.manual_seed(6)
    again.prepare(found, {"student": [], "teacher": [], "batch": []})
    for one, other in zip(term.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


class Together(nn.Module):
    def forward(self, student, teacher):
        assert (len(student), len(teacher)) == (2, 4)
        return sum(s.mean() for s in student) + sum(t.mean() for t in teacher)


def test_a_criterion_may_be_given_all_layers_together():
    term = Term(Together(), MANY, mapping="together")
    found = layered(2, 4)
    loss = term.prepare(found, {"student": [], "teacher": [], "batch": []})
    expected = sum(t.mean() for tensors in found.values() for t in tensors)
    assert_close(loss, expected)
    with pytest.raises(ValueError, match="mapping=together compares all at once; leave `adapter`"):
        Term(Together(), MANY, mapping="together", adapter="linear")


def test_a_pattern_that_the_model_does_not_run_whole_is_refused():
    source = {"student": "student.layer:a.*", "teacher": "teacher.layer:b.*"}
    found = {Source.parse(s): [torch.randn(2, 3)] for s in source.values()}
    layers = {"student": ["a.0", "a.1"], "teacher": ["b.0"], "batch": []}
    with pytest.raises(ValueError, match="names 2 layers, of which the student ran 1; list those"):
        Term(Hint(), source).prepare(found, layers)


def test_a_balance_makes_what_training_minimises_and_leaves_the_total_as_it_is(logits):
    terms = {
        "soft": Term(SoftTarget(2.0), LOGITS, weight=0.25),
        "hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}, 3.0),
    }
    balance = Uncertainty()
    objective = Objective(terms, balance)
    balance.log_variance.data += 1.0
    losses = objective(logits)
    assert_close(losses["loss"], 0.25 * losses["soft"] + 3.0 * losses["hard"])
    each = {name: losses[name] for name in terms}
    assert_close(objective.minimised(losses, {}), balance(each, objective.weights(), {}))
    assert "balance.log_variance" in objective.state_dict()
    assert_close(objective.without_teacher(losses), 3.0 * losses["hard"])
    alone = Objective({"hard": terms["hard"]})
    assert alone.without_teacher(losses) is None


def test_what_is_no_balance_is_refused():
    with pytest.raises(ValueError, match=r"`balance` must have a method `prepare`.*DOT is an opt"):
        Objective({"soft": Term(SoftTarget(), LOGITS)}, nn.Identity())


def test_a_term_that_reads_lists_counts_rows():
    term = Term(Together(), MANY, mapping="together")
    objective = Objective({"together": term})
    assert objective.counts(layered(2, 4)) == {"together": 2}

"""What every criterion with parts to train, or with a memory, must do, whatever its formula."""

import copy

import pytest
import torch
from hypothesis import given, settings, strategies as st
from processes import in_two_processes
from torch.testing import assert_close

from lightning_distill import Objective, Term
from lightning_distill.criteria import (
    AB,
    CRD,
    FT,
    ICKD,
    MGD,
    OFD,
    QueueSimilarity,
    ReviewKD,
    SRD,
    VID,
)
from lightning_distill.models.source import Source

MAPS, VECTORS = ((3, 5, 5), (4, 5, 5)), ((6,), (4,))
STAGES = [((3, 6, 6), (4, 8, 8)), ((5, 3, 3), (6, 4, 4)), ((5,), (3,))]
CASES = {
    "AB": (AB, MAPS),
    "FT": (FT, MAPS),
    "ICKD": (ICKD, MAPS),
    "OFD": (lambda: OFD(-0.5), MAPS),
    "OFD running mean": (OFD, MAPS),
    "VID": (VID, MAPS),
    "MGD": (lambda: MGD(alpha=0.1, ratio=0.0), MAPS),
    "MGD code": (lambda: MGD(alpha=0.1, ratio=0.5, variant="code"), MAPS),
    "ReviewKD": (lambda: ReviewKD(width=4), STAGES),
    "SRD": (SRD, VECTORS),
    "SRD gather": (lambda: SRD(gather=True), MAPS),
    "CRD": (lambda: CRD(samples=12, size=5, negatives=20), VECTORS),
    "CRD drawn": (lambda: CRD(samples=12, size=5, negatives=7), MAPS),
    "QueueSimilarity": (lambda: QueueSimilarity(size=16, teacher_temperature=0.1), VECTORS),
    "QueueSimilarity compress": (
        lambda: QueueSimilarity(16, 0.1, 0.1, variant="compress"),
        VECTORS,
    ),
    "QueueSimilarity lightly": (lambda: QueueSimilarity(16, 0.1, 0.1, variant="lightly"), MAPS),
}
EACH = pytest.mark.parametrize("name", CASES)


class Case:
    """A prepared criterion and inputs for it; `student` and `teacher` are lists of tensors."""

    def __init__(self, name, batch=6, scale=1.0, dtype=torch.float64, seed=0):
        build, shapes = CASES[name]
        self.many = isinstance(shapes, list)
        shapes = shapes if self.many else [shapes]
        generator = torch.Generator().manual_seed(seed)

        def draw(shape):
            x = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
            return (scale * x).to(dtype)

        self.student = [draw(s) for s, _ in shapes]
        self.teacher = [draw(t) for _, t in shapes]
        self.more = {"rows": torch.arange(batch)} if "CRD" in name else {}
        self.criterion = build()

    def arguments(self, mask=None):
        one = {} if mask is None else {"mask": mask}
        pair = (self.student, self.teacher) if self.many else (self.student[0], self.teacher[0])
        return {"student": pair[0], "teacher": pair[1], **self.more, **one}

    def prepare(self, seed=0):
        torch.manual_seed(seed)
        self.criterion.prepare(**self.arguments())
        return self

    def loss(self, mask=None):
        return self.criterion(**self.arguments(mask))

    def take(self, rows):
        """The same criterion on some of the samples."""
        taken = copy.copy(self)
        taken.student, taken.teacher = ([x[rows] for x in y] for y in (self.student, self.teacher))
        taken.more = {k: v[rows] for k, v in self.more.items()}
        return taken

    def gradients(self, loss):
        """Of the student's tensors and of the parts."""
        return torch.autograd.grad(loss, [*self.student, *self.criterion.parameters()])

    def watch(self):
        self.student = [x.clone().requires_grad_() for x in self.student]
        return self


def state(criterion):
    return {k: v.clone() for k, v in criterion.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a)


@EACH
def test_without_prepare_it_says_what_to_do(name):
    case = Case(name)
    words = r"has parts .* call prepare\(student, teacher\) with tensors of one batch before"
    message = f"{type(case.criterion).__name__} {words}"
    with pytest.raises(ValueError, match=message):
        case.loss()


@EACH
def test_prepare_builds_once_and_in_the_mode_and_keeps_no_sample(name):
    case = Case(name)
    case.criterion.eval()
    case.prepare()
    assert list(case.criterion.parameters())
    assert not any(m.training for m in case.criterion.modules())
    before, parts = state(case.criterion), list(case.criterion.parameters())
    case.student = [2 * x for x in case.student]
    case.prepare(seed=1)
    assert same(before, state(case.criterion))
    assert all(a is b for a, b in zip(parts, case.criterion.parameters(), strict=True))


# What comes before a batch norm has no use for a bias.
USELESS = {"SRD": ["projector.bias"], "SRD gather": ["projector.bias"]}


@EACH
def test_gradients_reach_the_student_and_every_part_and_of_ft_never_the_teacher(name):
    case = Case(name).prepare()
    case.loss()
    case.watch().teacher = [x.requires_grad_(name == "FT") for x in case.teacher]
    case.loss().backward()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in case.student)
    for part, p in case.criterion.named_parameters():
        assert p.grad.isfinite().all() and (part in USELESS.get(name, []) or p.grad.any())
    assert all(x.grad is None for x in case.teacher)


# In training these have another value each time.
MOVING = (
    "MGD code",
    "OFD running mean",
    "CRD drawn",
    *(name for name in CASES if name.startswith("Queue")),
)


@pytest.mark.parametrize(
    ("name", "training"),
    [(name, training) for name in CASES for training in (False, True)[: 1 + (name not in MOVING)]],
)
def test_gradient_of_the_student_and_of_the_parts(name, training):
    case = Case(name, batch=3).prepare()
    if training and name == "CRD":
        # The first batch settles Z; with a momentum of 1 nothing moves after it.
        case.loss()
        case.criterion.momentum = 1.0
    elif not training:
        [case.watch().loss() for _ in range(2)]
    case.criterion.train(training)
    case.watch()
    # FT's other parts learn from a part of the value; its own test looks at that.
    learned = (case.criterion.translator if name == "FT" else case.criterion).parameters()
    inputs = (*case.student, *learned)
    check = torch.autograd.gradcheck
    assert check(lambda *_: case.loss(), inputs, atol=1e-4, fast_mode=True)


@EACH
def test_the_order_of_the_batch_does_not_matter(name):
    case = Case(name).prepare()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    case.loss()
    case.criterion.eval()
    assert_close(case.take(order).loss(), case.loss())


@EACH
def test_a_mask_is_dropping_the_samples(name):
    keep = torch.tensor([True, False, True, True, False, True])
    found, expected = Case(name).prepare(), Case(name).prepare().take(keep)
    for x in (*found.student, *found.teacher):
        x[~keep] = torch.nan
    found.watch(), expected.watch()
    for step in range(3):
        torch.manual_seed(step)
        loss = found.loss(keep if step else keep.long())
        torch.manual_seed(step)
        wanted = expected.loss()
        assert_close(loss, wanted)
        n = len(found.student)
        gradients, wanted = found.gradients(loss), expected.gradients(wanted)
        assert_close([g[keep] for g in gradients[:n]], list(wanted[:n]))
        assert all(not g[~keep].any() for g in gradients[:n])
        assert_close(gradients[n:], wanted[n:])
    assert same(state(found.criterion), state(expected.criterion))


@EACH
def test_all_masked_is_zero_and_reaches_every_part(name):
    case = Case(name).prepare().watch()
    before = state(case.criterion)
    for _ in range(2):
        loss = case.loss(torch.zeros(6, dtype=torch.bool))
        assert loss == 0
        assert all(not g.any() for g in case.gradients(loss))
    assert same(before, state(case.criterion))


@EACH
@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0, 1e4])
def test_extreme_features_and_few_samples_give_finite_gradients(name, scale, batch):
    case = Case(name, batch, scale, torch.float32).prepare().watch()
    for training in (True, True, False):
        case.criterion.train(training)
        loss = case.loss()
        assert loss.isfinite() and all(g.isfinite().all() for g in case.gradients(loss))


@EACH
def test_sixteen_bits_are_computed_in_thirty_two(name):
    case = Case(name, dtype=torch.bfloat16).prepare()
    assert {p.dtype for p in case.criterion.parameters()} == {torch.float32}
    case.loss()
    exact = copy.copy(case)
    exact.criterion = copy.deepcopy(case.criterion).double()
    exact.student, exact.teacher = ([x.double() for x in y] for y in (case.student, case.teacher))
    for c in (case, exact):
        c.criterion.eval()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = case.loss()
    assert loss.dtype == torch.float32
    torch.manual_seed(0)
    assert_close(loss.double(), exact.loss(), rtol=1e-3, atol=1e-5)


@EACH
def test_parts_in_sixteen_bits_run_too(name):
    case = Case(name, dtype=torch.bfloat16).prepare().watch()
    case.criterion.bfloat16()
    for _ in range(2):
        loss = case.loss()
        assert loss.dtype == torch.float32 and loss.isfinite()
        assert all(g.isfinite().all() for g in case.gradients(loss))


@EACH
def test_a_checkpoint_holds_all_of_it(name):
    case = Case(name).prepare()
    for _ in range(2):
        case.loss()
    fresh = Case(name).prepare(seed=1)
    assert not same(state(case.criterion), state(fresh.criterion))
    fresh.criterion.load_state_dict(state(case.criterion))
    for training in (False, True, True):
        losses = []
        for c in (case, fresh):
            torch.manual_seed(0)
            losses.append(c.criterion.train(training) and c.loss())
        assert torch.equal(*losses)


@EACH
def test_only_training_under_gradients_is_remembered(name):
    case = Case(name).prepare()
    for _ in range(2):
        before = state(case.criterion)
        case.criterion.eval()
        case.loss()
        case.criterion.train()
        with torch.no_grad():
            case.loss()
        assert same(before, state(case.criterion))
        case.loss()
    before = state(case.criterion)
    case.take(slice(1, None)).loss()
    assert same(before, state(case.criterion)) == name.startswith(("FT", "MGD", "VID"))


@EACH
@settings(max_examples=10, deadline=None)
@given(batch=st.integers(0, 5), scale=st.floats(0.1, 10.0), masked=st.integers(0, 31))
def test_any_batch_and_any_mask(name, batch, scale, masked):
    case = Case(name, batch, scale).prepare().watch()
    mask = torch.tensor([bool(masked >> i & 1) for i in range(batch)], dtype=torch.bool)
    for _ in range(2):
        loss = case.loss(mask)
        assert loss.shape == () and loss.isfinite()
        assert all(g.isfinite().all() for g in case.gradients(loss))


@EACH
def test_another_number_of_samples_or_of_entries_of_the_mask_is_refused(name):
    case = Case(name).prepare()
    with pytest.raises(ValueError, match="must have one entry per value"):
        case.loss(torch.ones(5, dtype=torch.bool))
    words = r"one entry per value, (shape \(6,\), got \(6, 4\)|got shapes)"
    with pytest.raises(ValueError, match=words):
        case.loss(torch.ones(6, 4, dtype=torch.bool))
    case.teacher = [x[:5] for x in case.teacher]
    with pytest.raises((ValueError, TypeError), match="one entry per value|batch"):
        case.loss()


@pytest.mark.parametrize("name", [n for n, (_, shapes) in CASES.items() if shapes is MAPS])
def test_one_value_per_channel_has_no_variance_and_a_finite_gradient(name):
    case = Case(name, batch=1, dtype=torch.float32).prepare()
    case.student, case.teacher = ([x[..., :1, :1] for x in y] for y in (case.student, case.teacher))
    loss = case.watch().loss()
    assert loss.isfinite() and all(g.isfinite().all() for g in case.gradients(loss))


@pytest.mark.parametrize("build", [AB, FT, ICKD, OFD, VID], ids=lambda build: build.__name__)
def test_a_term_gives_each_pair_of_layers_its_own_parts_and_trains_them(build):
    sources = {"student": "student.hidden_states[*]", "teacher": "teacher.hidden_states[*]"}
    found = {
        Source.parse(sources["student"]): [torch.randn(6, c, 4, 4) for c in (2, 3)],
        Source.parse(sources["teacher"]): [torch.randn(6, c, 4, 4) for c in (4, 5)],
    }
    no_layers = {"student": [], "teacher": [], "batch": []}
    term = Term(build(), sources)
    objective = Objective({"mine": term})
    objective.prepare(found, no_layers)
    values = term._singles(found, no_layers)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    before = objective(values)["loss"].detach()
    for _ in range(20):
        optimizer.zero_grad()
        objective(values)["loss"].backward()
        assert all(p.grad.any() for p in objective.parameters())
        optimizer.step()
    assert objective(values)["loss"] < before


# Over two processes.

APART = [n for n in CASES if n not in ("SRD", "CRD drawn", "MGD code", "QueueSimilarity compress")]
# Unequal parts, some of them masked, and one rank without any in the second step.
STEPS = [([slice(0, 5), slice(5, 8)], 0b10111011), ([slice(0, 3), slice(3, 8)], 0b11010000)]


def trained(name, rank=None):
    """Losses, gradients and the state after some steps, as DDP would have them."""
    case = Case(name, batch=8).prepare()
    # Statistics of a batch norm are those of one process, as always with DDP.
    case.criterion.train(not name.startswith(("AB", "ICKD", "OFD", "ReviewKD")))
    results = []
    for parts, bits in [*STEPS, STEPS[0]]:
        mask = torch.tensor([bool(bits >> i & 1) for i in range(8)])
        rows = slice(None) if rank is None else parts[rank]
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        taken = case.take(rows)
        taken.student = [scale * x for x in taken.student]
        loss = taken.loss(mask[rows])
        if rank is not None:
            # What the objective does: this rank's share of what counts on all.
            counted = mask[rows].sum().double()
            everyone = counted.clone()
            torch.distributed.all_reduce(everyone)
            # That of a criterion that gathers is the value of all already.
            loss = loss if case.criterion.gather else 2 * counted / everyone * loss
        gradients = torch.autograd.grad(loss, [scale, *case.criterion.parameters()])
        if rank is not None:
            for g in gradients:
                torch.distributed.all_reduce(g)
            gradients = [g / 2 for g in gradients]
            loss = loss.detach() / 2
            torch.distributed.all_reduce(loss)
        results.append((loss.detach(), list(gradients)))
    return results, state(case.criterion)


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    torch.save({name: trained(name, rank) for name in APART}, f"{results}-{rank}")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    in_two_processes(_worker, (str(folder / "store"), str(folder / "results")))
    return [torch.load(folder / f"results-{rank}") for rank in range(2)]


@pytest.mark.parametrize("name", APART)
def test_two_processes_are_one_with_all_samples_and_remember_the_same(name, apart):
    expected, remembered = trained(name)
    for results, kept in (rank[name] for rank in apart):
        assert_close(results, expected)
        assert_close(kept, remembered, equal_nan=True)
    assert same(apart[0][name][1], apart[1][name][1])

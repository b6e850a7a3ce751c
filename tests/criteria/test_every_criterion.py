"""Value and gradient of every criterion are those of one process with all rows of a step."""

import copy
import os
from functools import partial

import every
import pytest
import tiny
import torch
from every import batch, CASES, Student, Teacher, whole
from processes import free_port, in_two_processes
from torch.testing import assert_close

from lightning_distill import criteria, DistillationModule, Objective
from lightning_distill.criteria._batch_norm import BatchNorm

# By rank: three batches of a step, of which some count nothing at all.
NOTHING = {
    "labels": torch.full((2,), -100),
    "kept": torch.zeros(2, dtype=torch.bool),
    "many_labels": torch.full((2, every.CLASSES), -100),
    "weight": torch.zeros(2, dtype=torch.float64),
    "numbers": torch.full((2, every.CLASSES), torch.nan, dtype=torch.float64),
    "shares": torch.full((2, every.CLASSES), -100.0, dtype=torch.float64),
}
FIRST, SECOND = ({"kept": torch.ones(n, dtype=torch.bool)} for n in (4, 3))
TRAINING = [
    [batch(4, 0, **FIRST), batch(3, 1, **SECOND), batch(1, 2)],
    [batch(4, 4, **FIRST), batch(2, 3, **NOTHING), batch(5, 5)],
]
# Of repeats that even out the ranks nothing counts; one rank has nothing else in its last batch.
REPEATS = {"row": torch.tensor([-1, -1])}
VALIDATION = [[batch(4, 6), batch(3, 7)], [batch(2, 8, **NOTHING), batch(2, 9, **REPEATS)]]
EXPORTED = {
    name
    for name in criteria.__all__
    if isinstance(getattr(criteria, name), type) and name != "Criterion"
}
SINGLE_STEP = {"rtol": 2e-5, "atol": 1e-7}


class Module(DistillationModule):
    """Keeps what it logs, and the statistics of batch norms, which DDP has for each process."""

    def on_train_start(self):
        self.logged = []
        for part in self.objective.modules():
            if isinstance(part, BatchNorm):
                part.eval()

    def log(self, name, value, **options):
        super().log(name, value, **options)

    def log_dict(self, values, **options):
        self.logged.append({name: float(value) for name, value in values.items()})
        super().log_dict(values, **options)


def made() -> Module:
    objective = Objective({name: case.term(name) for name, case in CASES.items()})
    sgd = partial(torch.optim.SGD, lr=1.0)
    return Module(Student(1).double(), Teacher(2).double(), objective, optimizer=sgd)


def parameters(module):
    named = {f"student.{n}": p for n, p in module.student.named_parameters()}
    return named | {f"objective.{n}": p for n, p in module.objective.named_parameters()}


def trained(folder, training, validation, **options):
    """Means of validation, what each batch logged, and the gradient of one step."""
    module = made()
    trainer = tiny.trainer(
        folder, accumulate_grad_batches=3, precision="64-true", log_every_n_steps=1, **options
    )
    (means,) = trainer.validate(module, tiny.loader(validation), verbose=False)
    before = {n: p.detach().clone() for n, p in parameters(module).items()}
    trainer.fit(module, tiny.loader(training))
    moved = {n: before[n] - p.detach() for n, p in parameters(module).items()}
    return means, module.logged, moved


def _worker(rank, folder, port):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    found = trained(
        folder,
        TRAINING[rank],
        VALIDATION[rank],
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    torch.save(found, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes found, of all criteria at once."""
    folder = tmp_path_factory.mktemp("ranks")
    in_two_processes(_worker, (str(folder), free_port()))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """One process, whose criteria have built what they train for the first batch."""
    module = made()
    # As under precision="64-true", where parts are drawn in double precision.
    torch.set_default_dtype(torch.float64)
    module.prepare(copy.deepcopy(TRAINING[0][0]))
    torch.set_default_dtype(torch.float32)
    module.on_train_start()
    return module


def names(objective, name):
    return list(objective.sums.get(name, {name: 1.0}))


def value(module, name, rows):
    """The criterion of a case on one batch, as its term says; of several means, their sum."""
    values, _, _ = module.read_sources(rows, heads="skipped")
    weights = module.objective.sums.get(name, {name: 1.0})
    return sum(r * module.objective.terms[n](values) for n, r in weights.items())


def in_one_process(module, name):
    """The value of the step, and that of each of its batches with the rows of both ranks."""
    case = CASES[name]
    together = [whole(list(pair)) for pair in zip(*TRAINING, strict=True)]
    if case.in_turn is None:
        return value(module, name, whole(together)), [value(module, name, b) for b in together]
    values, counts = [], torch.stack([case.in_turn(b) for b in together])
    for rows in together:
        values.append(value(module, name, rows))
        module.objective.terms[name].criterion.observe(values[-1].detach())
    return sum(n * v for n, v in zip(counts, values, strict=True)) / counts.sum(), values


def test_every_exported_criterion_is_a_case():
    assert set(CASES) >= EXPORTED
    for name in EXPORTED:
        criterion = CASES[name].build()
        assert type(criterion) is getattr(criteria, name)
        # What moves, or is told from others, is taken in turn.
        assert CASES[name].in_turn is not None or not criterion.across_samples


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_with_accumulation_are_one_process_with_all_rows(name, ranks, alone):
    module = copy.deepcopy(alone)
    expected, of_batches = in_one_process(module, name)
    named = {
        n: p
        for n, p in parameters(module).items()
        if n.split(".")[2] == name or n.split(".")[2] in names(module.objective, name)
    }
    gradients = torch.autograd.grad(expected, list(named.values()))
    assert any(g.any() for g in gradients)
    for _, logged, moved in ranks:
        for found, wanted in zip(logged, of_batches, strict=True):
            assert found[f"train/{name}"] == pytest.approx(float(wanted), rel=2e-5, abs=1e-6)
        for n, gradient in zip(named, gradients, strict=True):
            assert_close(moved[n], gradient, **SINGLE_STEP)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_means_of_validation_are_those_of_the_whole_split(name, ranks, alone):
    module = copy.deepcopy(alone).eval()
    parts = [b for rank in VALIDATION for b in rank if (b["row"] >= 0).all()]
    with torch.no_grad():
        if CASES[name].in_turn is None or name in ("OFD", "TAID"):
            expected = value(module, name, whole(parts))
        else:
            # Samples are compared within their batch.
            counts = torch.stack([CASES[name].in_turn(b) for b in parts])
            values = [value(module, name, b) for b in parts]
            pairs = zip(counts, values, strict=True)
            expected = sum(n * v for n, v in pairs if n) / counts.sum()
    for means, _, _ in ranks:
        assert means[f"val/{name}"] == pytest.approx(float(expected), rel=2e-5, abs=1e-6)

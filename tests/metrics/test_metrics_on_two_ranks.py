"""Two processes with unequal numbers of tokens compute what one computes."""

import naive
import pytest
import torch
import torch.multiprocessing as mp
from processes import in_two_processes

from lightning_distill.metrics import (
    Agreement,
    BitsPerByte,
    ForwardKL,
    Perplexity,
    ReverseKL,
    Samples,
)

METRICS = {
    "perplexity": Perplexity,
    "bits_per_byte": BitsPerByte,
    "forward_kl": ForwardKL,
    "reverse_kl": ReverseKL,
    "agreement": Agreement,
}
# By rank: batches of so many rows and tokens; no token of the last batch counts.
SHAPES = [[(4, 9)], [(2, 5), (1, 3), (2, 2)]]


def parts(rank: int) -> list:
    generator = torch.Generator().manual_seed(rank)
    found = []
    for rows, tokens in SHAPES[rank]:
        student = 3 * torch.randn(rows, tokens, 11, generator=generator)
        teacher = 3 * torch.randn(rows, tokens, 13, generator=generator)
        labels = torch.randint(0, 11, (rows, tokens), generator=generator)
        labels[torch.rand(rows, tokens, generator=generator) < 0.3] = -100
        labels = labels if (rows, tokens) != (2, 2) else torch.full_like(labels, -100)
        sizes = torch.randint(1, 6, (rows, tokens), generator=generator)
        found.append((student, teacher, labels, sizes))
    return found


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    metrics = {name: kind() for name, kind in METRICS.items()}
    for student, teacher, labels, sizes in parts(rank):
        batch = {"labels": labels, "label_bytes": sizes}
        for samples in Samples.of(batch, student, teacher, metrics=metrics.values()):
            for metric in metrics.values():
                samples.feed(metric)
    results[rank] = {name: float(metric.compute()) for name, metric in metrics.items()}
    torch.distributed.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    assert found[0] == found[1]
    expected = naive.measured([*parts(0), *parts(1)])
    apart = naive.measured(parts(1))
    for name, value in found[0].items():
        assert value == pytest.approx(expected[name], rel=1e-6), name
        assert value != pytest.approx(apart[name], rel=1e-3), name

"""A small cache, and all that it should hold."""

from pathlib import Path

import numpy as np
import torch

from lightning_distill.cache import (
    Answer,
    AnswerStore,
    Full,
    row_ids,
    Sampled,
    ShardWriter,
    TopK,
    write_manifest,
)

ANSWERS = [
    Answer("logits", False, (9,), TopK(3)),
    Answer("hidden_states[1]", True, (8,), Full("float8")),
    Answer("layer:pooler", False, (4, 2), Full("bfloat16")),
    Answer("scores", True, (7,), Sampled(5)),
]
ROWS, PER_SHARD = 36, 10


def inputs(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 6, (ROWS,), generator=generator)
    lengths[0] = 5
    mask = (torch.arange(5) < lengths[:, None]).long()
    # A number of its own in each: no two rows are the same.
    rows = torch.randint(5, 60, (ROWS, 5), generator=generator) * mask
    return {"input_ids": rows, "attention_mask": mask, "number": torch.arange(ROWS)[:, None]}


def values(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed + 100)
    shapes = {a.name: ((5,) if a.per_token else ()) + a.shape for a in ANSWERS}
    return {n: torch.randn(ROWS, *shape, generator=generator) for n, shape in shapes.items()}


def keep(folder: Path, seed: int = 0, about: dict | None = None) -> None:
    """Write the cache as the job does: shards, then the manifest."""
    folder.mkdir(exist_ok=True)
    given, answers = inputs(), values(seed)
    ids, lengths = row_ids(given), given["attention_mask"].sum(1).tolist()
    about = about or {"teacher": {"fingerprint": "a"}}
    teacher = about["teacher"]["fingerprint"]
    writer, facts = ShardWriter(folder, ANSWERS, teacher), []
    for number, start in enumerate(range(0, ROWS, PER_SHARD)):
        rows = slice(start, start + PER_SHARD)
        writer.add(ids[rows], {n: v[rows] for n, v in answers.items()}, lengths[rows])
        facts.append(writer.write(f"shard-{number:05d}"))
    write_manifest(folder, about, ANSWERS, facts)


def read_all(folder: Path, batch: int = 7) -> dict[str, torch.Tensor]:
    """Every answer to every row, in an order of no shard."""
    store = AnswerStore(folder)
    ids = row_ids(inputs())
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1)).numpy()
    found: dict[str, list] = {a.name: [None] * ROWS for a in ANSWERS}
    for chunk in np.split(order, range(batch, ROWS, batch)):
        places = store.find(ids[chunk])
        if (places < 0).any():
            raise LookupError("a row is missing")
        got, lengths = store.read(ids[chunk], places, [a.name for a in ANSWERS])
        for answer in ANSWERS:
            counts = lengths if answer.per_token else [1] * len(chunk)
            for i, piece in zip(chunk, got[answer.name].split(counts), strict=True):
                found[answer.name][i] = piece
    return {name: torch.cat(pieces) for name, pieces in found.items()}

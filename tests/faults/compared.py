"""What two runs left, compared."""

import csv
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from faults.job import command, fresh_folder, JOB, on_two_ranks
from torch import nn

from lightning_distill.run.stage import load_checkpoint

# What a clock measured, and where it lies.
OF_THE_CLOCK = ("seconds", "Clock", "dirpath", "best_model_path", "last_model_path", "hparams")
OF_THE_CLOCK += ("best_k_models", "kth_best_model_path", "hyper_parameters")
# Lightning does not read it again, and sets it at the next validation.
OF_THE_CLOCK += ("current_score",)


def at(folder: Path) -> str:
    """The argument for where a run writes."""
    return f"hydra.run.dir={folder}"


@functools.cache
def uncut(arguments: tuple[str, ...] = tuple(JOB), ranks: int = 1) -> Path:
    """The folder of a run that nothing happened to."""
    folder = fresh_folder() / "uncut"
    run = on_two_ranks if ranks == 2 else command
    kept = {"LIGHTNING_DISTILL_CACHE": str(folder.parent / "cache")}
    given = {"faults": {}} if ranks == 2 else {}
    ended = run([*arguments, at(folder)], environment=kept, **given)
    assert ended.code == 0, f"the uncut run failed: {ended.said[-500:]}"
    return folder


def check_equal(run: Path, other: Path) -> None:
    """Two runs left the same weights, states, figures and results.

    Raises:
        AssertionError: naming what differs.
    """
    found = sorted(_files(other))
    assert sorted(_files(run)) == found, f"other files: {sorted(set(_files(run)) ^ set(found))}"
    for name in found:
        one, two = run / name, other / name
        if name.endswith(".ckpt"):
            loaded = [torch.load(p, map_location="cpu", weights_only=True) for p in (one, two)]
            _same(*loaded, name)
        elif name.endswith("result.json"):
            left = [json.loads(p.read_text()) for p in (one, two)]
            for result in left:
                result.pop("seconds")
            assert left[0] == left[1], f"{name}: {left[0]} and {left[1]}"
        elif name.endswith("metrics.csv"):
            _same(_csv(one), _csv(two), name)
        elif "student/" in name and not name.endswith("SHA256SUMS"):
            assert _sum(one) == _sum(two), f"{name} differs"


def _files(run: Path) -> list[str]:
    found = [p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()]
    kinds = (".ckpt", "result.json", "metrics.csv", ".safetensors")
    return [name for name in found if name.endswith(kinds) or name.startswith("student/")]


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        found = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if "second" not in k} for row in found]


def _same(one: Any, two: Any, where: str) -> None:
    if any(where.endswith(name) or f"/{name}" in where for name in OF_THE_CLOCK):
        return
    assert type(one) is type(two), f"{where}: {type(one).__name__} and {type(two).__name__}"
    if isinstance(one, torch.Tensor):
        assert torch.equal(one.nan_to_num(), two.nan_to_num()), f"{where} differs"
    elif isinstance(one, dict):
        assert set(one) == set(two), f"{where}: {sorted(map(str, set(one) ^ set(two)))}"
        for name in one:
            _same(one[name], two[name], f"{where}/{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), f"{where}: {len(one)} and {len(two)}"
        for number, (left, right) in enumerate(zip(one, two, strict=True)):
            _same(left, right, f"{where}/{number}")
    else:
        same = one == two or (one != one and two != two)
        assert same, f"{where}: {one!r} and {two!r}"


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_words(ended: Any, *words: str) -> None:
    """A command failed with one line that says why, and no traceback.

    Raises:
        AssertionError: if it did not.
    """
    assert ended.code is not None, f"it still ran after {ended.seconds:.0f} s"
    assert ended.code > 0, f"it ended with {ended.code}: {ended.said[-300:]}"
    assert "Traceback" not in ended.said, f"a traceback: {ended.err[-300:]}"
    lines = [s for s in ended.err.splitlines() if s.startswith("lightning-distill: error:")]
    assert lines, f"no line of its own: {ended.err[-300:]}"
    for word in words:
        assert word in ended.err, f"{word!r} is not in {lines[0]!r}"


def gone_on(arguments: Sequence[str], folder: Path) -> list[str]:
    """What to type after a run was cut off: it may not even have begun."""
    if (folder / "config.yaml").is_file():
        return [f"resume={folder}"]
    return [*arguments, at(folder)]


class _Kept(nn.Module):
    """Keeps the weights that it is given."""

    def load_state_dict(self, state, *_, **__):
        self.state = dict(state)


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    """What the product reads in a checkpoint.

    Raises:
        ValueError: if it refuses it.
    """
    kept = _Kept()
    load_checkpoint(kept, path)
    return kept.state

"""A file was changed after it was written: it is refused in words, or what is read is the same."""

import json
import random
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from faults.case import Case
from faults.compared import check_equal, check_words, uncut, weights_in
from faults.job import command, TINY, workplace

TITLE = "A file that was changed: flipped bits, cut, zeros, garbage, swapped"
FLIPS = {"last.ckpt": 500, "best": 280, "student": 80, "result.json": 100, "settings": 40}
CUTS, ZEROS, GARBAGE, SWAPS = 20, 5, 20, 5


def cases() -> list[Case]:
    found = []
    for what, count in FLIPS.items():
        for n in range(count):
            attempt = partial(_damaged, what=what, damage=partial(_flip, seed=n))
            found.append(Case(f"bit of {what}: {n}", attempt, n < 5))
    ways = [("cut", CUTS, _cut), ("zeros", ZEROS, _zeros), ("garbage", GARBAGE, _garbage)]
    ways.append(("swapped", SWAPS, _swap))
    for way, count, damage in ways:
        for n in range(count):
            what = list(FLIPS)[n % len(FLIPS)]
            attempt = partial(_damaged, what=what, damage=partial(damage, seed=n))
            found.append(Case(f"{way}: {what} {n}", attempt, n < 2))
    for n, damage in enumerate((_flip, _cut, _zeros, _garbage, _swap)):
        attempt = partial(_resumed, damage=partial(damage, seed=n))
        found.append(Case(f"resumed by the command: last.ckpt {n}", attempt, n == 0))
        attempt = partial(_taught, damage=partial(damage, seed=n))
        found.append(Case(f"a teacher by the command: model.safetensors {n}", attempt))
        attempt = partial(_evaluated, damage=partial(damage, seed=n))
        found.append(Case(f"evaluated by the command: model.safetensors {n}", attempt))
    return found


def _damaged(folder: Path, what: str, damage: Callable[[Path], None]) -> None:
    """Read it as the product does, and compare with what was read before."""
    run = folder / "run"
    shutil.copytree(uncut(), run)
    path = _file(run, what)
    damage(path)
    try:
        read = _read(run, what, path)
    except (ValueError, OSError) as error:
        assert str(path.name) in str(error) or str(path.parent) in str(error), f"unnamed: {error}"
        return
    assert _alike(read, _before(what)), f"{path.name} was read silently as something else"


def _file(run: Path, what: str) -> Path:
    if what == "best":
        return next((run / "checkpoints").glob("best*.ckpt"))
    names = {"last.ckpt": "checkpoints/last.ckpt", "student": "student/model.safetensors"}
    names |= {"result.json": "result.json", "settings": "student/config.json"}
    return run / names[what]


def _read(run: Path, what: str, path: Path) -> Any:
    from lightning_distill.run import stage
    from lightning_distill.teachers import pretrained

    if what == "last.ckpt":
        newest = stage.newest_whole(run / "checkpoints") if hasattr(stage, "newest_whole") else path
        state = torch.load(newest, map_location="cpu", weights_only=True)
        # Another one that is whole was taken: that is said, and no wrong value is read.
        return _before(what) if newest != path else state
    if what == "best":
        return weights_in(path)
    if what == "result.json":
        if not hasattr(stage, "_result"):
            return json.loads(path.read_text())
        result = stage._result(path, run)
        return _before(what) if result is None else vars(result)
    model = pretrained(str(run / "student"))
    return {"config": _of(model), **model.state_dict()}


def _of(model: Any) -> Any:
    told = model.config.to_dict()
    return {k: v for k, v in told.items() if k not in ("_name_or_path", "transformers_version")}


@cache
def _before(what: str) -> Any:
    return _read(uncut(), what, _file(uncut(), what))


def _alike(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict) and isinstance(two, dict):
        return set(one) == set(two) and all(_alike(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(_alike, one, two))
    return bool(one == two or (one != one and two != two))


def _resumed(folder: Path, damage: Callable[[Path], None]) -> None:
    run = folder / "run"
    shutil.copytree(uncut(), run)
    for name in ("result.json", "result.json.sha256", "finished"):
        (run / name).unlink(missing_ok=True)
    damage(run / "checkpoints" / "last.ckpt")
    ended = command([f"resume={run}"])
    if ended.code != 0:
        return check_words(ended, "last.ckpt")
    assert "last.ckpt" in ended.said, "it went on without a word"
    return check_equal(run, uncut())


def _taught(folder: Path, damage: Callable[[Path], None]) -> None:
    shutil.copytree(uncut() / "student", folder / "teacher")
    damage(folder / "teacher" / "model.safetensors")
    given = [*TINY, "teacher=pretrained", f"teacher.path={folder}/teacher"]
    check_words(command([*given, f"hydra.run.dir={folder}/run"]), "model.safetensors")


def _evaluated(folder: Path, damage: Callable[[Path], None]) -> None:
    run = folder / "run"
    shutil.copytree(uncut(), run)
    damage(run / "student" / "model.safetensors")
    given = ["job=evaluate", f"job.path={run}/student", *TINY, f"hydra.run.dir={folder}/evaluation"]
    check_words(command(given), "model.safetensors")


def _flip(path: Path, seed: int) -> None:
    content = bytearray(path.read_bytes())
    bit = random.Random(f"{path.name}{seed}").randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def _cut(path: Path, seed: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.Random(seed).randrange(len(content))])


def _zeros(path: Path, seed: int) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _garbage(path: Path, seed: int) -> None:
    path.write_bytes(random.Random(seed).randbytes(path.stat().st_size))


def _swap(path: Path, seed: int) -> None:
    """That of another run, which is whole."""
    other = uncut((*_other(),))
    name = path.name
    if name.startswith("best"):
        found = next((other / "checkpoints").glob("best*.ckpt"))
    else:
        found = next(p for p in other.rglob(name) if "baseline" not in p.parts)
    content = found.read_bytes()
    if name == "config.json":
        told = json.loads(content)
        content = json.dumps(told | {"layer_norm_eps": 0.5}).encode()
    path.write_bytes(content)


def _other() -> list[str]:
    workplace()
    from faults.job import JOB

    return [*JOB, "seed=1"]

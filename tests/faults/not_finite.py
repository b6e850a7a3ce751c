"""NaN or infinity in a model, a gradient or a batch: the run ends in words, its weights finite."""

from functools import partial
from pathlib import Path

import torch
from faults.case import Case
from faults.compared import at, check_words
from faults.job import command, JOB, on_two_ranks, STEPS
from safetensors.torch import load_file

TITLE = "NaN and infinity: student, teacher, gradient, weight, metric"
BAD = {"NaN": float("nan"), "infinity": float("inf"), "minus infinity": -float("inf")}


def cases() -> list[Case]:
    found = []
    for place in ("student's logits", "gradient", "teacher's logits", "student's weight"):
        for title, value in BAD.items():
            for step in (1, STEPS - 1, STEPS, 2 * STEPS):
                if title != "NaN" and step not in (1, STEPS):
                    continue
                attempt = partial(_spoiled, place=place, value=value, step=step, ranks=1)
                quick = (place, title, step) == ("gradient", "NaN", STEPS)
                found.append(Case(f"{place}: {title} in step {step}", attempt, quick))
    for place in ("student's logits", "gradient"):
        for step in (1, 2):
            attempt = partial(_spoiled, place=place, value=BAD["NaN"], step=step, ranks=2)
            found.append(Case(f"{place} of one of two processes: NaN in step {step}", attempt))
    found.append(Case("checked rarely: gradient NaN in the last step", _rarely))
    return found


def _spoiled(folder: Path, place: str, value: float, step: int, ranks: int) -> None:
    fault = partial(spoil, place, value, step)
    given = [*JOB, at(folder / "run")]
    ended = command(given, fault) if ranks == 1 else on_two_ranks(given, {1: fault}, 60)
    # A class that the teacher rules out is no error.
    if ended.code != 0 or (place, value) != ("teacher's logits", BAD["minus infinity"]):
        check_words(ended)
    _check_finite(folder / "run")


def _rarely(folder: Path) -> None:
    fault = partial(spoil, "gradient", BAD["NaN"], STEPS)
    rarely = "+callbacks.finite_loss.every_n_steps=20"
    ended = command([*JOB, rarely, at(folder / "run")], fault)
    if "every_n_steps" in ended.said:
        ended = command([*JOB, at(folder / "run")], fault)
    if ended.code != 0:
        check_words(ended)
    _check_finite(folder / "run")


def _check_finite(run: Path) -> None:
    for path in run.rglob("*.ckpt"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        bad = [k for k, v in state["state_dict"].items() if not torch.isfinite(v).all()]
        assert not bad, f"{path.name} holds values that are not finite: {bad[:3]}"
    for path in run.rglob("*.safetensors"):
        bad = [k for k, v in load_file(path).items() if not torch.isfinite(v).all()]
        assert not bad, f"{path.parent.name} holds values that are not finite: {bad[:3]}"


def spoil(place: str, value: float, step: int) -> None:
    """Let a value appear in a step, in a process that is about to train."""
    from faults.moments import at_hook

    if place == "gradient":
        at_hook("on_before_optimizer_step", step, partial(_gradient, value))
    elif place == "student's weight":
        at_hook("on_train_batch_start", step, partial(_weight, value))
    else:
        role = "student" if place.startswith("student") else "teacher"
        at_hook("on_train_batch_start", step, partial(_logits, role, value))


def _gradient(value, trainer, module, *_, **__) -> None:
    next(p for p in module.student.parameters() if p.grad is not None).grad.view(-1)[0] = value


def _weight(value, trainer, module, *_, **__) -> None:
    with torch.no_grad():
        next(module.student.parameters()).view(-1)[:] = value


def _logits(role, value, trainer, module, *_, **__) -> None:
    model = module.student if role == "student" else module.taught_by and module.taught_by.model
    if model is None:
        return

    def change(_, __, output):
        output = output.clone()
        output[0, 0] = value
        handle.remove()
        return output

    handle = model.classifier.register_forward_hook(change)

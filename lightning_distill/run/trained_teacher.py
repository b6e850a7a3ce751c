"""A teacher that is trained on the spot, kept, and found again by what made it."""

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from ..check_values import check_number
from ..data.cache_folder import cache_folder
from ..data.data import check_keeps_teacher, DataFacts
from ..metrics.traits import needs_teacher
from ..models.hugging_face import check_dtype, saves_itself
from ..models.quantization import check_quantization, quantized
from ..objective.objective import Objective
from ..sealed import ChangedFileError, check_folder, seal_folder
from ..tasks import Task, task_of
from ..teachers import pretrained
from ..training.module import DistillationModule
from .call import call, known
from .data import check_lengths
from .metrics import build_metrics, watching
from .objective import label_terms
from .one_at_a_time import one_at_a_time
from .row_heads import give_rows_a_head
from .save import save_model_of_transformers
from .stage import say, train
from .targets import find_target
from .task import auto_class_of, task_in
from .trainer import optimization, process_count

# What may change a teacher when it is another version.
MAKERS = ("lightning-distill", "torch", "lightning", "transformers", "tokenizers")


def trained_teacher(
    cfg: DictConfig,
    data: Any,
    model: Any,
    max_epochs: int = 6,
    learning_rate: float = 1e-3,
    label_smoothing: float = 0.0,
    batch_size: int = 32,
    folder: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    rehearse: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Train a model on all labels of the data, or load the one that was trained so before.

    Args:
        cfg: the run's configuration, for everything not named here.
        data: the data module; all its labels are used, also those kept from the student.
        model: the configuration of the model to train.
        max_epochs: passes over the data.
        learning_rate: of the configured optimizer.
        label_smoothing: share of the label's probability spread over all classes.
        batch_size: rows per step.
        folder: where to keep it; `teachers` in `cache_folder` by default.
        dtype: `float32` (the default), `bfloat16` or `float16`: in which it answers. It is trained
            and kept in float32.
        quantization: `int8` makes its answers cheaper and changes them, see `quantized`.
        rehearse: called with the untrained model before it is trained, to find what would fail
            afterwards.

    Returns:
        The trained model, its best by the monitored metric; with `cfg.debug` an untrained one if
        none is kept.
    """
    check_number("teacher.max_epochs", max_epochs, whole=True, least=1, required=True)
    check_number("teacher.learning_rate", learning_rate, above=0, required=True)
    check_number("teacher.label_smoothing", label_smoothing, least=0, most=1, required=True)
    check_number("teacher.batch_size", batch_size, whole=True, least=1, required=True)
    answering = check_dtype(dtype)
    check_quantization(quantization)
    check_keeps_teacher(data, "teacher=trained")
    # The teacher learns from what it will be given.
    data = DataFacts(data).as_teacher_reads()
    facts = DataFacts(data)
    if facts.labelled_rows == 0:
        raise ValueError(
            "No training row has a label, so no teacher can be trained on them. Is data.label the "
            "right column? Without labels name a trained one: teacher=pretrained teacher.path=DIR."
        )
    build_metrics(cfg, data)
    recipe = {
        **_settings(cfg),
        "model": model,
        "max_epochs": max_epochs,
        "learning_rate": learning_rate,
        "label_smoothing": label_smoothing,
        # Of all processes: a step over more rows makes another teacher.
        "batch_size": batch_size * process_count(cfg),
        "seed": cfg.seed,
        "data": data.fingerprint(),
        # Which rows share a batch, and in which order they come.
        "order": facts.order,
        "labels": facts.label_names,
        "versions": {name: version(name) for name in MAKERS},
    }
    if facts.row_label_names is not None:
        recipe["row_labels"] = facts.row_label_names
    text = json.dumps(recipe, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    kept = (Path(folder) if folder else cache_folder() / "teachers") / key
    if (found := _found(cfg, kept, dtype, quantization)) is not None:
        return found
    _check_writable(kept)
    teacher = call(DictConfig(model), known(data), "teacher.model")
    if not saves_itself(teacher):
        raise ValueError(
            f"teacher=trained keeps what it has trained, and a {type(teacher).__name__} has no "
            "method `save_pretrained`. Take a model of transformers, or train the teacher first "
            "(lightning-distill job=finetune) and load it in a function of your own, named by "
            "teacher._target_."
        )
    (task_in(cfg) or Task()).settle(teacher)
    give_rows_a_head(cfg, data, teacher)
    check_lengths(data, teacher=teacher)
    if rehearse is not None:
        # Whoever learns from a teacher freezes it.
        rehearse(copy.deepcopy(teacher))
    if cfg.get("debug"):
        say("Teacher", "fresh weights, for none is kept, and debug=true trains none")
        return quantized(teacher.eval().to(answering), quantization)
    with one_at_a_time(kept, "Teacher", str(cfg.output_dir)):
        # Another run may have made it while this one waited.
        if (found := _found(cfg, kept, dtype, quantization)) is not None:
            return found
        say("Teacher", f"training once, then kept in {kept}")
        stage = cfg.copy()
        with open_dict(stage):
            stage.optimizer.lr = learning_rate
            # The student's alone.
            stage.sparsity = None
        metrics = {n: m for n, m in build_metrics(stage, data).items() if not needs_teacher(m)}
        task = task_in(cfg)
        objective = Objective(label_terms(cfg, teacher, label_smoothing))
        stage = watching(stage, metrics, objective)
        module = DistillationModule(
            teacher, None, objective, metrics, task=task, **optimization(stage)
        )
        # What shapes the student's steps is no part of the teacher's recipe.
        whole = {
            "labelled_rows": None,
            "drop_unlabelled": True,
            "batch_size": batch_size,
            "tokens_per_batch": None,
            "augmentation": None,
            "views": None,
            "mixup": None,
        }
        rows = facts.replaced(**whole)
        directory = Path(str(cfg.output_dir)) / "teacher"
        # A stream does not say how long an epoch is: the teacher has as many steps as the student.
        steps = cfg.trainer.max_steps if facts.is_streaming else -1
        train(stage, module, rows, directory, max_epochs=max_epochs, max_steps=steps)
        _keep(module.student, facts.processors(task_of(data).processors), kept, text)
    # As if it were loaded from there, for who asks where it is.
    module.student.name_or_path = str(kept)  # type: ignore[assignment]
    return quantized(module.student.eval().to(answering), quantization)


def _found(
    cfg: DictConfig, kept: Path, dtype: str | None, quantization: str | None
) -> nn.Module | None:
    if not _is_whole(kept):
        return None
    say("Teacher", f"found in {kept}")
    kind = auto_class_of(task_in(cfg), kept)
    return pretrained(str(kept), kind, dtype=dtype, quantization=quantization)


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What else makes a teacher: everything but where it runs and what it shows."""
    names = ["optimizer", "scheduler", "callbacks", "metrics", "trainer", "monitor", "mode"]
    # Not resolved: the student's learning rate and the run's folder are no part of a recipe.
    everything: Any = OmegaConf.to_container(cfg)
    groups: dict[str, Any] = {name: everything.get(name) or {} for name in names}
    # Those that compare with a teacher are off in jobs that have none but this one.
    groups["metrics"] = {
        name: node for name, node in groups["metrics"].items() if node and not _compares(node)
    }
    where = ("accelerator", "devices", "num_nodes", "strategy", "default_root_dir")
    shown = ("log_every_n_steps", "enable_model_summary", "max_epochs", "max_steps")
    for name, left_out in (
        ("trainer", where + shown),
        ("optimizer", ("lr",)),
        ("callbacks", ("progress_bar",)),
    ):
        groups[name] = {k: v for k, v in groups[name].items() if k not in left_out}
    return groups


def _compares(node: dict[str, Any]) -> bool:
    return needs_teacher(find_target(str(node.get("_target_"))), node)


@rank_zero_only
def _check_writable(kept: Path) -> None:
    folder = kept.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"The teacher cannot be kept in {folder}: {error.strerror}. Name another folder, as in "
            "teacher.folder=DIR, or set LIGHTNING_DISTILL_CACHE."
        ) from error


def _is_whole(kept: Path) -> bool:
    """Whether a teacher is kept there, and is what was written."""
    if not (kept / "recipe.json").is_file():
        return False
    try:
        if check_folder(kept):
            return True
        reason = f"{kept} has no sums of its files."
    except ChangedFileError as error:
        reason = str(error)
    say("Teacher", f"{reason} It is trained again.")
    return False


@rank_zero_only
def _keep(model: Any, processors: Sequence[Any], kept: Path, recipe: str) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that a killed run leaves no half teacher to be found.
    aside = Path(tempfile.mkdtemp(dir=kept.parent))
    save_model_of_transformers(model, aside)
    for processor in processors:
        processor.save_pretrained(aside)
    (aside / "recipe.json").write_text(recipe, encoding="utf-8")
    seal_folder(aside)
    shutil.rmtree(kept, ignore_errors=True)
    aside.rename(kept)

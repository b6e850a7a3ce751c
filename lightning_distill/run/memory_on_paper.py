"""How much memory the steps of a run take, before any weight is read."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from transformers.initialization import no_init_weights

from ..checks.memory import on_paper, step_memory, StepMemory
from ..data.data import DataFacts
from ..data.some_rows import largest_batch
from ..models.batch import batch_size, tensors
from ..models.dropout import without_dropout
from ..models.gradient_checkpointing import checkpoint_gradients
from ..models.hugging_face import check_dtype, find_auto_class
from ..models.memory import memory_of_machine
from ..models.remote_code import remote_code_is_trusted
from ..models.size import parameter_count
from ..tasks import Task
from ..training.module import DistillationModule
from .call import call, known
from .models import build_student
from .objective import build_label_objective, build_objective
from .stages import stages_of
from .task import auto_class_of, task_in
from .trainer import build_module, build_trainer, optimization

OURS = "lightning_distill."
# Makers that draw weights, or copy those of the teacher, and read none.
MADE = (f"{OURS}students.from_config", f"{OURS}students.from_teacher")
LOADED = (f"{OURS}students.pretrained", f"{OURS}teachers.pretrained")

# Of parameters times numbers of a batch: a step takes some tenths of a second.
SMALL = 2e10

QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}


# What torch raises where values are asked for that are not there.
DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)


class UnknownOnPaper(ValueError):
    """What a model is like is known only when it is loaded."""


def memory_of(cfg: DictConfig) -> int:
    """Bytes of memory of the device on which a run trains."""
    # To make a trainer takes time, and most that ask have no choice.
    device = _trainer(cfg).strategy.root_device if torch.cuda.is_available() else None
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_of_machine()


def memory_on_paper(
    cfg: DictConfig,
    data: Any,
    of_labels: bool = False,
    with_flops: bool = True,
    small_for_real: bool = False,
) -> tuple[StepMemory, int]:
    """What a step of the first stage takes with its largest batch, and how many rows that has.

    Args:
        cfg: the run's configuration; it stays as it is.
        data: a data module that is set up.
        of_labels: whether the student learns from labels alone.
        with_flops: whether operations are counted, too.
        small_for_real: whether a step is taken where that costs less than one on paper, with
            models that have drawn weights and are thrown away. It takes the same memory.

    Raises:
        UnknownOnPaper: saying why it cannot be told.
    """
    cfg = cfg.copy()
    if "lr" in cfg.optimizer and cfg.optimizer.lr is None:
        # Any will do.
        cfg.optimizer.lr = 1e-3
    precision = _trainer(cfg).precision_plugin
    batch = largest_batch(data)
    with on_paper() as mode:
        try:
            models = models_on_paper(cfg, data)
        except DATA_DEPENDENT as error:
            raise UnknownOnPaper(f"a model looks at values when it is made ({error})") from error
        small = small_for_real and _is_small(models, batch)
        if not small:
            found = _step(cfg, models, batch, of_labels, precision, mode, with_flops)
    if small:
        models = models_on_paper(cfg, data, drawn=True)
        found = _step(cfg, models, batch, of_labels, precision, None, with_flops)
    return found, batch_size(batch)


def _is_small(models: tuple[nn.Module, nn.Module | None], batch: Any) -> bool:
    parameters = sum(parameter_count(model) for model in models if model is not None)
    return parameters * sum(tensor.numel() for tensor in tensors(batch)) <= SMALL


def _step(
    cfg: DictConfig,
    models: tuple[nn.Module, nn.Module | None],
    batch: Any,
    of_labels: bool,
    precision: Any,
    mode: Any,
    with_flops: bool,
) -> StepMemory:
    student, teacher = models
    stage = stages_of(cfg, student)[0]
    if OmegaConf.select(cfg, "gradient_checkpointing"):
        checkpoint_gradients(student)
    with stage.trains(student):
        if of_labels:
            objective = build_label_objective(stage.cfg, student)
            rest = optimization(stage.cfg)
            module = DistillationModule(student, None, objective, **rest, task=task_in(cfg))
        else:
            objective = build_objective(stage.cfg)
            module = build_module(stage.cfg, student, teacher, objective, {})
        precision.convert_module(module)
        every = stage.cfg.trainer.get("accumulate_grad_batches") or 1
        try:
            return step_memory(module, batch, precision, every, mode, with_flops)
        except Exception as error:
            # Models of any kind may look at values, which are not there.
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UnknownOnPaper(f"the models look at values ({first})") from error


def _trainer(cfg: DictConfig) -> Any:
    """That of the run, with none of its callbacks and loggers."""
    cfg = cfg.copy()
    cfg.callbacks = cfg.logger = None
    return build_trainer(cfg, Path(str(cfg.output_dir)), callbacks=[], **QUIET)


def models_on_paper(
    cfg: DictConfig, data: Any, drawn: bool = False
) -> tuple[nn.Module, nn.Module | None]:
    """Student and teacher; called where tensors have no data.

    Args:
        cfg: the run's configuration.
        data: a data module that is set up.
        drawn: whether weights are drawn, for models that compute.

    Raises:
        UnknownOnPaper: naming the model that would have to be loaded.
    """
    teacher = None
    if cfg.teacher is not None:
        node = cfg.teacher
        if node.get("_target_") == f"{OURS}run.caching_teacher":
            node = node.of if node.path is None else _loading(node)
        if node.get("_target_") == f"{OURS}run.trained_teacher":
            node = node.model
        teacher = _made(cfg, node, data, "teacher", None, drawn)
    return _made(cfg, cfg.student, data, "student", teacher, drawn), teacher


def _made(
    cfg: DictConfig,
    node: DictConfig,
    data: Any,
    role: str,
    teacher: nn.Module | None,
    drawn: bool,
) -> nn.Module:
    # Drawing weights takes time, and some ways of it look at values.
    with nullcontext() if drawn else no_init_weights():
        made = _maker(cfg, node, data, role, teacher)
    if isinstance(made, transformers.PreTrainedModel):
        # That comes with drawing.
        made.tie_weights()
    return made


def _loading(node: DictConfig) -> DictConfig:
    return OmegaConf.create(
        {"_target_": LOADED[1], "path": node.path, "auto_class": node.auto_class}
    )


def _maker(
    cfg: DictConfig, node: DictConfig, data: Any, role: str, teacher: nn.Module | None
) -> nn.Module:
    target = str(node.get("_target_"))
    if node.get("quantization") is not None or target not in (*MADE, *LOADED):
        raise UnknownOnPaper(f"what {role} {target} is like is known when it is loaded")
    if target in LOADED:
        return _from_folder(cfg, node, data, role)
    if role == "student":
        return build_student(cfg, data, teacher, rehearsal=True)
    made: nn.Module = call(node, known(data), role)
    return made


def _from_folder(cfg: DictConfig, node: DictConfig, data: Any, role: str) -> nn.Module:
    path, task = str(node.path), task_in(cfg) or Task()
    trust = remote_code_is_trusted()
    config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=trust)
    facts = DataFacts(data)
    if role == "student" and not task.predicts_ids and facts.num_labels is not None:
        task.write_labels(config, facts.num_labels, facts.label_names)
    options = {"dtype": check_dtype(node.get("dtype")), "trust_remote_code": trust}
    if node.get("attn_implementation") is not None:
        options["attn_implementation"] = node.attn_implementation
    cls = find_auto_class(node.get("auto_class") or auto_class_of(task, path))
    made: nn.Module = cls.from_config(config, **options)
    if role == "student" and node.get("dropout") is False:
        # Its masks are kept for the way back.
        without_dropout(made)
    return made

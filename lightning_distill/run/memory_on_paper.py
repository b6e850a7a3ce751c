"""How much memory the steps of a run take, before any weight is read."""

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
from ..models.batch import batch_size
from ..models.gradient_checkpointing import checkpoint_gradients
from ..models.hugging_face import check_dtype, find_auto_class
from ..models.memory import memory_of_machine
from ..models.remote_code import remote_code_is_trusted
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

QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}


# What torch raises where values are asked for that are not there.
DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)


class UnknownOnPaper(ValueError):
    """What a model is like is known only when it is loaded."""


def memory_of(cfg: DictConfig) -> int:
    """Bytes of memory of the device on which a run trains."""
    device = _trainer(cfg).strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return memory_of_machine()


def memory_on_paper(
    cfg: DictConfig, data: Any, of_labels: bool = False, with_flops: bool = True
) -> tuple[StepMemory, int]:
    """What a step of the first stage takes with its largest batch, and how many rows that has.

    Args:
        cfg: the run's configuration; it stays as it is.
        data: a data module that is set up.
        of_labels: whether the student learns from labels alone.
        with_flops: whether operations are counted, too.

    Raises:
        UnknownOnPaper: saying why it cannot be told.
    """
    cfg = cfg.copy()
    if "lr" in cfg.optimizer and cfg.optimizer.lr is None:
        # Any will do.
        cfg.optimizer.lr = 1e-3
    trainer = _trainer(cfg)
    batch = largest_batch(data)
    with on_paper() as mode:
        try:
            student, teacher = models_on_paper(cfg, data)
        except DATA_DEPENDENT as error:
            raise UnknownOnPaper(f"a model looks at values when it is made ({error})") from error
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
            precision = trainer.precision_plugin
            precision.convert_module(module)
            every = stage.cfg.trainer.get("accumulate_grad_batches") or 1
            try:
                found = step_memory(module, batch, precision, every, mode, with_flops)
            except Exception as error:
                # Models of any kind may look at values, which are not there.
                first = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UnknownOnPaper(f"the models look at values ({first})") from error
    return found, batch_size(batch)


def _trainer(cfg: DictConfig) -> Any:
    """That of the run, with none of its callbacks and loggers."""
    cfg = cfg.copy()
    cfg.callbacks = cfg.logger = None
    return build_trainer(cfg, Path(str(cfg.output_dir)), callbacks=[], **QUIET)


def models_on_paper(cfg: DictConfig, data: Any) -> tuple[nn.Module, nn.Module | None]:
    """Student and teacher; called where tensors have no data.

    Args:
        cfg: the run's configuration.
        data: a data module that is set up.

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
        teacher = _made(cfg, node, data, "teacher", None)
    return _made(cfg, cfg.student, data, "student", teacher), teacher


def _made(
    cfg: DictConfig, node: DictConfig, data: Any, role: str, teacher: nn.Module | None
) -> nn.Module:
    # Drawing weights takes time, and some ways of it look at values.
    with no_init_weights():
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
    return made

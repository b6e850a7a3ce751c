"""From the configuration to objects: data, models, objective, metrics and trainer."""

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn, Tensor
from torchmetrics import Metric

from .. import criteria
from ..batches import check_largest_id, longest_input
from ..data.rows import UNLABELLED
from ..features import Source
from ..head import linear_head
from ..labels import label_order
from ..module import DistillationModule
from ..objective import Objective, Term
from ..students.from_config import AUTO_CLASSES
from ..teachers import CachedTeacher, CachingTeacher
from ..teachers.pretrained import check_path
from .cached_teacher import teacher_weights, tokenizer_path
from .vocabularies import share_ids

log = logging.getLogger("lightning_distill")

# Meant for labels of which exactly one is right.
SOFTMAX = (
    criteria.DIST,
    criteria.DKD,
    criteria.JSD,
    criteria.KnowledgeDistillation,
    criteria.MLKD,
    criteria.NKD,
    criteria.OFA,
    criteria.ReverseKL,
    criteria.SkewKL,
    criteria.SkewReverseKL,
    criteria.SoftCrossEntropy,
    criteria.SoftTarget,
    criteria.TAID,
    criteria.TfKD,
    criteria.TotalVariation,
    criteria.WSLD,
)


FITTING_METRICS = {
    "classification": "accuracy",
    "language_modelling": "perplexity",
    "multi_label": "multilabel_f1",
    "regression": "pearson",
}


def group(cfg: DictConfig, name: str) -> Any:
    """The members of a list of choices; an empty list leaves no such key behind."""
    return OmegaConf.select(cfg, name) or {}


def check_metric_task(cfg: DictConfig, name: str, node: Any) -> None:
    """Refuse a metric that measures something else than the task: it might be silently wrong."""
    target = str(node.get("_target_") if OmegaConf.is_dict(node) else None)
    given = cfg.task or "classification"
    kind = target.rpartition(".")[2]
    if target.startswith("lightning_distill.metrics.") and given in ("multi_label", "regression"):
        raise ValueError(
            f"metrics.{name} ({kind}) measures a softmax over classes or tokens, which "
            f"data.task={given} does not have. Choose what fits, as in "
            f"metrics=[{FITTING_METRICS[given]}]."
        )
    if not target.startswith("torchmetrics."):
        return
    if kind == "Perplexity":
        raise ValueError(
            f"metrics.{name} ({target}) takes whole rows at once, and its sums lose digits over "
            "many tokens. Choose metrics=[perplexity]."
        )
    task = None
    if getattr(get_object(target), "__module__", "").startswith("torchmetrics.regression"):
        task = "regression"
    elif kind.startswith("Multilabel"):
        task = "multi_label"
    elif kind.startswith(("Multiclass", "Binary")):
        task = "classification"
    if task == "classification" and given == "language_modelling" and node.get("num_classes"):
        # The next token is one of many classes.
        return
    if task not in (None, given) and given in FITTING_METRICS:
        raise ValueError(
            f"metrics.{name} ({kind}) measures data.task={task}, but the data has task={given}. "
            f"Choose what fits, as in metrics=[{FITTING_METRICS[given]}]."
        )


def label_kind(task: str | None) -> str:
    """Which label loss belongs to a task."""
    kinds = {"multi_label": "binary_cross_entropy", "regression": "mse"}
    return kinds.get(str(task), "cross_entropy")


def build_data(cfg: DictConfig) -> Any:
    """Load the data, and write what it says of itself into `cfg`.

    That is `task`, `num_labels` and `num_rows`, the number of training rows.

    The student's tokenizer is its own if it is pretrained, else the teacher's, else one that
    is trained on the data.
    """
    with open_dict(cfg):
        paths = [OmegaConf.select(cfg, f"{role}.path") for role in ("student", "teacher")]
        for path in paths:
            if path is not None:
                check_path(path)
        paths[1] = paths[1] or tokenizer_path(cfg)
        if "tokenizer" in cfg.data and cfg.data.tokenizer is None:
            cfg.data.tokenizer = paths[0] or paths[1]
        two = "teacher_tokenizer" in cfg.data and cfg.data.teacher_tokenizer is None and all(paths)
        if two and not share_ids(cfg, str(cfg.data.tokenizer), paths[1]):
            cfg.data.teacher_tokenizer = paths[1]
    data = instantiate(cfg.data)
    if not isinstance(data, L.LightningDataModule):
        raise ValueError(
            f"`data` must be a LightningDataModule, got a {type(data).__name__} "
            f"from {cfg.data.get('_target_')}."
        )
    data.prepare_data()
    data.setup("fit")
    with open_dict(cfg):
        for name in ("task", "num_labels", "num_rows"):
            found = getattr(data, name, None)
            given = cfg.get(name)
            if given is not None and found is not None and given != found:
                raise ValueError(f"{name}={given}, but the data has {name}={found}.")
            cfg[name] = found if found is not None else given
    return data


def known(data: Any, **more: Any) -> dict[str, Any]:
    """What a model's constructor may ask for by name."""
    tokenizer = getattr(data, "tokenizer", None)
    known = {
        "num_labels": getattr(data, "num_labels", None),
        "label_names": getattr(data, "label_names", None),
        "task": getattr(data, "task", None),
        "vocab_size": None if tokenizer is None else len(tokenizer),
        "pad_token_id": getattr(tokenizer, "pad_token_id", None),
        "eos_token_id": getattr(tokenizer, "eos_token_id", None),
        "auto_class": AUTO_CLASSES.get(str(getattr(data, "task", None))),
        "data": data,
        **more,
    }
    return {name: value for name, value in known.items() if value is not None}


def call(node: Any, known: Mapping[str, Any], role: str = "model") -> Any:
    """Instantiate `node`, giving it those of the known values that it takes and does not set.

    Raises:
        ValueError: naming the role, if `node` names no class or the class needs more.
    """
    if not OmegaConf.is_config(node) or "_target_" not in node:
        raise ValueError(f"`{role}` must name a class or function by `_target_`, got {node!r}.")
    target = instantiate(node, _partial_=True, _convert_="object")
    wanted = inspect.signature(target.func).parameters
    given = {
        name: value
        for name, value in known.items()
        if name in wanted and target.keywords.get(name) is None
    }
    missing = [
        p.name
        for p in wanted.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in {*given, *target.keywords}
    ]
    if missing == ["teacher"]:
        raise ValueError(
            f"`{role}` ({node['_target_']}) needs a teacher, and there is none; choose one, as in "
            "teacher=pretrained teacher.path=DIR."
        )
    if missing:
        raise ValueError(
            f"`{role}` ({node['_target_']}) needs {', '.join(missing)}; set it, as in "
            f"+{role}.{missing[0]}=VALUE."
        )
    return target(**given)


def build_teacher(
    cfg: DictConfig, data: Any, rehearse: Callable[[nn.Module], None] | None = None
) -> nn.Module:
    """The teacher, loaded or trained as `cfg.teacher` says.

    Args:
        cfg: the run's configuration.
        data: the data module.
        rehearse: given to a teacher that is yet to be trained: called with it untrained, it finds
            what cannot work before that time is spent.
    """
    if cfg.teacher is None:
        raise ValueError("This job needs a teacher, as in teacher=pretrained teacher.path=DIR.")
    teacher = call(cfg.teacher, known(data, cfg=cfg, rehearse=rehearse), "teacher")
    if not isinstance(teacher, nn.Module):
        raise ValueError(f"`teacher` must be a torch.nn.Module, got a {type(teacher).__name__}.")
    names = getattr(getattr(teacher, "config", None), "id2label", None)
    if names is not None and getattr(data, "label_names", None):
        label_order(data.label_names, names, ("data", "teacher"))
    return teacher


def build_student(cfg: DictConfig, data: Any, teacher: nn.Module | None) -> nn.Module:
    """The student, fresh, loaded, or cut from the teacher, as `cfg.student` says."""
    if isinstance(teacher, CachingTeacher):
        teacher = teacher.teacher
    if isinstance(teacher, CachedTeacher):
        # Only for a student that is made from its weights are they loaded, and not kept.
        wanted = _is_made_of_teacher(cfg.student)
        teacher = teacher_weights(teacher, cfg) if wanted else None
    student = call(cfg.student, known(data, teacher=teacher), "student")
    if not isinstance(student, nn.Module):
        raise ValueError(f"`student` must be a torch.nn.Module, got a {type(student).__name__}.")
    return student


def _arguments(node: Any) -> list[str]:
    """What the class or function that `node` names takes."""
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    return [] if target is None else list(inspect.signature(get_object(str(target))).parameters)


def _is_made_of_teacher(node: Any) -> bool:
    of = node.get("of") if OmegaConf.is_dict(node) else None
    if of is None:
        return "teacher" in _arguments(node)
    return node.get("path") is None and _is_made_of_teacher(of)


def build_objective(cfg: DictConfig) -> Objective:
    """All terms of `cfg.criteria`.

    Raises:
        ValueError: if there are none, or one is not meant for the task.
    """
    terms = _terms(cfg)
    for name, term in terms.items():
        criterion = getattr(term, "criterion", None)
        if (
            cfg.task in ("multi_label", "regression")
            and isinstance(criterion, SOFTMAX)
            and term.active
        ):
            raise ValueError(
                f"{name} compares a softmax over the classes, which data.task={cfg.task} does not "
                "have. Take another, as in criteria=[hard_label,logit_mse], or for independent "
                "labels criteria=[hard_label,one_versus_all]."
            )
    balance = instantiate(cfg.balance) if group(cfg, "balance") else None
    return Objective(terms, balance)


def build_label_objective(cfg: DictConfig, model: nn.Module) -> Objective:
    """The terms of `cfg.criteria` that read no teacher, or plain labels if there are none.

    Args:
        cfg: the run's configuration.
        model: which will learn from them.
    """
    terms = {
        name: term
        for name, term in _terms(cfg).items()
        if term.active and all(source.role != "teacher" for source in term.sources())
    }
    return Objective(terms or {"hard_label": label_term(cfg.task, model)})


def label_term(task: str | None, model: nn.Module, label_smoothing: float = 0.0) -> Term:
    """What a model learns of labels alone; a language model without making its logits."""
    head = linear_head(model) if task == "language_modelling" and not label_smoothing else None
    if head is not None:
        fused = {"student": f"student.layer_input:{head}", "student_head": f"student.head:{head}"}
        return Term(criteria.FusedLinearCrossEntropy(), {**fused, "labels": "batch.labels"})
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    return Term(criteria.HardLabel(label_kind(task), label_smoothing), inputs)


def _terms(cfg: DictConfig) -> dict[str, Any]:
    if not group(cfg, "criteria"):
        raise ValueError("`criteria` is empty; choose some, as in criteria=[hard_label].")
    terms = {
        str(name): instantiate(node, _convert_="object")
        for name, node in group(cfg, "criteria").items()
        if node is not None
    }
    if cfg.task == "language_modelling":
        for term in terms.values():
            _mask_tokens(term)
    return terms


def _mask_tokens(term: Any) -> None:
    """Compare logits of the tokens that have a label only, where the term names no mask."""
    inputs = getattr(term, "inputs", {})
    if "mask" in inputs or not any(s.name == "logits" for s in inputs.values()):
        return
    if "mask" in inspect.signature(term.criterion.forward).parameters:
        term.inputs["mask"] = Source("batch", "output", "labels", process=_has_label)


def _has_label(labels: Tensor) -> Tensor:
    return labels != UNLABELLED


def build_module(
    cfg: DictConfig,
    student: nn.Module,
    teacher: nn.Module | None,
    objective: Objective,
    metrics: Mapping[str, Metric],
) -> DistillationModule:
    """The module that `cfg.module` names, or a plain one."""
    # A run that is older than this key goes on as it was.
    node = cfg.get("module")
    make = DistillationModule if node is None else instantiate(node, _convert_="object")
    module = make(student, teacher, objective, metrics, **optimization(cfg))
    if not isinstance(module, DistillationModule):
        raise ValueError(
            f"`module` must make a DistillationModule, got a {type(module).__name__} from "
            f"{node.get('_target_')}."
        )
    return module


def build_metrics(cfg: DictConfig) -> dict[str, Metric]:
    """All metrics of `cfg.metrics`; settles `cfg.monitor` and `cfg.mode` where they are null."""
    metrics = {}
    for name, node in group(cfg, "metrics").items():
        if node is not None:
            check_metric_task(cfg, str(name), node)
            metrics[str(name)] = instantiate(node)
    if not metrics:
        raise ValueError("`metrics` is empty; choose some, as in metrics=[accuracy].")
    monitored = str(cfg.monitor or f"val/{next(iter(metrics))}")
    name = monitored.removeprefix("val/")
    losses = ["loss", *[str(n) for n, node in group(cfg, "criteria").items() if node is not None]]
    if not monitored.startswith("val/") or name not in [*metrics, *losses]:
        choices = ", ".join(f"val/{n}" for n in [*metrics, *losses])
        raise ValueError(f"`monitor` must be one of {choices}, got {monitored!r}.")
    mode = cfg.mode
    if mode is None:
        higher = getattr(metrics.get(name), "higher_is_better", name not in losses)
        mode = "min" if higher is False else "max"
    if mode not in ("min", "max"):
        raise ValueError(f"`mode` must be min or max, got {mode!r}.")
    cfg.monitor, cfg.mode = monitored, mode
    return metrics


def watching(cfg: DictConfig, metrics: Mapping[str, Metric], objective: Objective) -> DictConfig:
    """The configuration for a stage that may not measure what the run monitors.

    A teacher's training has no agreement, and a baseline no teacher term; they choose their best by
    the first metric they have.
    """
    watched = str(cfg.monitor).removeprefix("val/")
    if watched in metrics or watched in [*objective.terms, "loss"]:
        return cfg
    cfg = cfg.copy()
    cfg.monitor = f"val/{next(iter(metrics), 'loss')}"
    higher = getattr(metrics.get(cfg.monitor.removeprefix("val/")), "higher_is_better", False)
    cfg.mode = "min" if higher is False else "max"
    return cfg


def check_lengths(data: Any, **models: nn.Module | None) -> None:
    """Refuse rows that are longer than what a model reads, or hold tokens that it does not know.

    Either would stop the run at that row.

    Raises:
        ValueError: naming the model, what is in the row and what to do.
    """
    for role, model in models.items():
        if model is None:
            continue
        own = role == "teacher" and getattr(data, "teacher_tokenizer", None) is not None
        side = "teacher" if own else "student"
        rows = [getattr(s, side)["input_ids"] for s in getattr(data, "splits", {}).values()]
        longest = max((int(split.lengths.max(initial=0)) for split in rows), default=0)
        largest = max((int(split.values.max(initial=0)) for split in rows), default=0)
        check_largest_id(largest, model, role, "data")
        limit = longest_input(model)
        if limit is not None and longest > limit:
            raise ValueError(
                f"The {role} reads at most {limit} tokens, but the data has rows of {longest}. Set "
                f"data.max_length={limit}."
            )


def build_trainer(cfg: DictConfig, directory: Path, **changes: Any) -> L.Trainer:
    """A trainer that writes into `directory`, with the configured callbacks and loggers."""
    cfg = cfg.copy()
    cfg.output_dir = str(directory)
    callbacks = [instantiate(node) for node in group(cfg, "callbacks").values() if node is not None]
    loggers = [instantiate(node) for node in group(cfg, "logger").values() if node is not None]
    # Without these Lightning would put its own in the place of what was switched off.
    implied = {
        "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
    }
    options = {"callbacks": callbacks, "logger": loggers, **implied, **changes}
    try:
        return instantiate(cfg.trainer, **options)
    except InstantiationException as error:
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        where = [f"trainer.{name}={cfg.trainer.get(name)}" for name in ("accelerator", "devices")]
        raise ValueError(
            f"{' '.join(where)} does not work here: {error.__cause__} "
            "trainer.accelerator=auto trainer.devices=1 takes what this machine has."
        ) from error


def optimization(cfg: DictConfig) -> dict[str, Any]:
    """The factories of optimizer and scheduler, as arguments of the module."""
    return {
        "optimizer": instantiate(cfg.optimizer),
        "scheduler": None if cfg.scheduler is None else instantiate(cfg.scheduler),
    }


def without_agreement(cfg: DictConfig) -> None:
    """Switch off what compares with a teacher, for jobs that have none."""
    for name, node in group(cfg, "metrics").items():
        target = node.get("_target_") if OmegaConf.is_dict(node) else None
        if target is not None and getattr(get_object(str(target)), "needs_teacher", False):
            cfg.metrics[name] = None

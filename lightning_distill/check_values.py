"""What the values of a configuration must be, looked at before anything is loaded or trained."""

import math
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from .experiment_choices import choice_of_experiment, default_choice, packaged, settings_of
from .models_of_job import unused_models
from .overrides import home, key_of

# Arguments of `check_number`. What a class of the configuration checks by itself is not here.
NUMBERS: dict[str, dict[str, Any]] = {
    "seed": {"whole": True, "least": 0, "most": 2**32 - 1, "required": True},
    "hang_seconds": {"above": 0},
    "trainer.max_steps": {"whole": True, "least": 1, "unlimited": True},
    "trainer.accumulate_grad_batches": {"whole": True, "least": 1},
    "trainer.log_every_n_steps": {"whole": True, "least": 1},
    "trainer.gradient_clip_val": {"least": 0},
    "trainer.limit_train_batches": {"above": 0},
    "trainer.check_val_every_n_epoch": {"whole": True, "least": 1},
    "max_metric_drop": {"least": 0},
    "optimizer.lr": {"above": 0},
    "optimizer.weight_decay": {"least": 0},
    "callbacks.early_stopping.patience": {"whole": True, "least": 0},
    "callbacks.early_stopping.min_delta": {"least": 0},
    "callbacks.weight_average.decay": {"least": 0, "most": 1},
}
CHOICES = {"mode": ("min", "max"), "metric_drop": ("relative", "absolute")}
BOOLEANS = (
    "baseline",
    "compile",
    "control",
    "debug",
    "gradient_checkpointing",
    "preview",
    "profile",
    "trainer.enable_model_summary",
    "teacher.trust_remote_code",
)

MODEL = "a folder that save_pretrained wrote, or a name on the Hugging Face hub"
REQUIRED = {
    "teacher.path": f"{MODEL}, as in teacher.path=DIR",
    "student.path": f"{MODEL}, as in student.path=DIR",
    "student.name": "a model of timm, as in student.name=resnet18",
    "teacher.name": "a model of timm, as in teacher.name=resnet18",
    "data.train": "a file or several, as in data.train=train.tsv; with data=hub a split",
}
# Those that can do without a path, or have another name for it.
NAMELESS = (
    *("cached_teacher", "caching_teacher", "lora_student", "projected_student", "ImageFolder"),
    ".timm",
)
GROUPS = {
    "job": "distill",
    "data": "text_files",
    "student": "from_config",
    "optimizer": "adamw",
    "trainer": "default",
}
OPTIONAL_GROUPS = (
    *("teacher", "criteria", "balance", "sparsity", "metrics", "scheduler", "callbacks"),
    "logger",
)
# Groups of one choice that a training is made of, whose settings belong to that choice.
PARTS_OF_TRAINING = ("balance", "module", "optimizer", "scheduler", "sparsity")


def check_values(cfg: DictConfig) -> None:
    """Refuse at once what would fail only when a teacher is trained already.

    A group that was left out, as in `~teacher`, is null afterwards, and so is a teacher that the
    job does without; `~/` at the beginning of a text is the user's home.

    Raises:
        ValueError: naming the value, what it must be and what it is.
    """
    with open_dict(cfg):
        for group in OPTIONAL_GROUPS:
            if group not in cfg:
                cfg[group] = None
    for group, choice in GROUPS.items():
        if OmegaConf.select(cfg, group) is None:
            raise ValueError(f"`{group}` is left out; choose one, as in {group}={choice}.")
    if "teacher" in _unused(cfg):
        # Neither its tokenizer shall be chosen, nor shall a job that reads this run ask for it.
        cfg.teacher = None
    _go_home(cfg)
    drop_settings_of_others(cfg)
    _check_interpolations(cfg)
    for name, choices in CHOICES.items():
        value = OmegaConf.select(cfg, name)
        if name == "mode" and _job(cfg) == "cache":
            # Of this job it is write or verify.
            continue
        if value is not None and value not in choices:
            raise ValueError(f"`{name}` must be {' or '.join(choices)}, got {value!r}.")
    _check_required(cfg)
    for name, limits in NUMBERS.items():
        check_number(name, OmegaConf.select(cfg, name), **limits)
    limited = OmegaConf.select(cfg, "trainer.max_steps", default=-1) not in (-1, None)
    epochs = OmegaConf.select(cfg, "trainer.max_epochs")
    check_number("trainer.max_epochs", epochs, whole=True, least=1, unlimited=limited)
    for name in BOOLEANS:
        value = OmegaConf.select(cfg, name)
        if value is not None:
            check_boolean(name, value)
    if cfg.get("compile") and cfg.get("gradient_checkpointing"):
        # torch 2.13 stops with an error of its own compiler where shapes vary.
        raise ValueError(
            "compile=true and gradient_checkpointing=true do not go together: torch does not "
            "compile layers that are computed again. Set one of them to false."
        )


def check_number(
    name: str,
    value: Any,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    unlimited: bool = False,
    required: bool = False,
) -> None:
    """Refuse what is not such a number; null passes unless it is required.

    Args:
        name: as the user would type it.
        value: what was given.
        whole: only whole numbers.
        least: the smallest that is allowed.
        above: must be greater.
        most: the largest that is allowed.
        unlimited: -1 is allowed too.
        required: null is not allowed.

    Raises:
        ValueError: naming what is expected and what came.
    """
    if value is None and not required:
        return
    words = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise ValueError(f"{name} must be {words}, got {value!r}.")
    if unlimited and value == -1:
        return
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}.")
    if above is not None and not value > above:
        limit = "positive" if above == 0 else f"greater than {above}"
        raise ValueError(f"{name} must be {limit}, got {value}.")
    if least is not None and value < least:
        limit = "not be negative" if least == 0 else f"be at least {least}"
        raise ValueError(f"{name} must {limit}, got {value}.")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}.")


def check_boolean(name: str, value: Any) -> None:
    """Refuse what is neither true nor false.

    Args:
        name: as the user would type it.
        value: what was given.

    Raises:
        ValueError: naming what is expected and what came.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}.")


def _go_home(node: Any) -> None:
    """Put the user's home in the place of a first `~`, wherever a path may stand."""
    for key in list(node) if OmegaConf.is_dict(node) else range(len(node)):
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        if OmegaConf.is_config(value):
            _go_home(value)
        elif isinstance(value, str) and home(value) != value:
            node[key] = home(value)


def drop_settings_of_others(cfg: DictConfig) -> None:
    """Leave out what an experiment sets of its parts where others were chosen.

    What a user sets of a criterion, a metric or a callback that is not chosen is refused.
    """
    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    _drop_settings_of_other_choices(cfg, given)
    for group in ("criteria", "metrics", "callbacks"):
        lacking = _without_class(cfg.get(group))
        for name in lacking:
            # What is not one of this package's may lack its class by mistake.
            if group != "criteria" and packaged(f"{group}/{name}") is None:
                continue
            if any(key_of(override).startswith(f"{group}.{name}.") for override in given):
                others = [one for one in cfg[group] if one not in lacking]
                chosen = [one for one in others if packaged(f"{group}/{one}") is not None]
                raise ValueError(
                    f"{group}.{name} is set, but {name} is not among the {group}: choose it, as in "
                    f"{group}=[{','.join([*chosen, name])}], or leave that out."
                )
            with open_dict(cfg):
                del cfg[group][name]


def _without_class(members: Any) -> list[str]:
    """Members of a list of choices that have settings and nothing that they are settings of."""
    if not OmegaConf.is_dict(members):
        return []
    nodes = {str(name): node for name, node in members.items()}
    return [name for name, n in nodes.items() if OmegaConf.is_dict(n) and "_target_" not in n]


def _drop_settings_of_other_choices(cfg: DictConfig, given: Sequence[str]) -> None:
    """Leave out what an experiment sets of a part where the user chose another, or none."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    experiment = choices.get("experiment")
    if packaged(f"experiment/{experiment}") is None:
        return
    typed = [key_of(override) for override in given]
    for group in ("data", "teacher", "student", *PARTS_OF_TRAINING):
        if f"~{group}" in given and group in OPTIONAL_GROUPS:
            # Hydra takes out the choice alone.
            if cfg.get(group) is not None:
                cfg[group] = None
            continue
        own = settings_of(group, choices.get(group))
        # It may set values of what is there without a word.
        meant = choice_of_experiment(experiment, group) or default_choice(group)
        if group not in typed or not own or meant == choices.get(group):
            continue
        for key in [str(key) for key in cfg.get(group) or {}]:
            name = f"{group}.{key}"
            if key not in own and not any(t == name or t.startswith(f"{name}.") for t in typed):
                with open_dict(cfg):
                    del cfg[group][key]


def is_cut_from_teacher(student: Any) -> bool:
    """Whether the configuration of a student makes it of the teacher's weights."""
    if not OmegaConf.is_dict(student):
        return False
    if str(student.get("_target_", "")).endswith(("from_teacher", "pruned_student")):
        return True
    # One with adapters is made of another.
    return student.get("path") is None and is_cut_from_teacher(student.get("of"))


def _unused(cfg: DictConfig) -> tuple[str, ...]:
    """Models of the configuration that the job does without."""
    return unused_models(_job(cfg), is_cut_from_teacher(cfg.student))


def _job(cfg: DictConfig) -> str:
    return str(OmegaConf.select(cfg, "job._target_")).rpartition(".")[2]


def _check_required(cfg: DictConfig) -> None:
    unused = _unused(cfg)
    missing = {n for n in OmegaConf.missing_keys(cfg) if n.partition(".")[0] not in unused}
    for name, what in REQUIRED.items():
        group, _, key = name.partition(".")
        if group in unused:
            continue
        node = cfg[group]
        # A class of the user's own may take null.
        target = "" if node is None else str(node.get("_target_"))
        ours = target.startswith("lightning_distill.") and not target.endswith(NAMELESS)
        if name in missing or (ours and key in node and node[key] is None):
            raise ValueError(f"{name} is missing: name {what}.")
    if missing:
        names = ", ".join(sorted(missing))
        raise ValueError(f"{names} must be set, as in {sorted(missing)[0]}=VALUE.")


def _check_interpolations(cfg: DictConfig) -> None:
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except InterpolationResolutionError as error:
        cause, _, where = str(error).partition("full_key:")
        where = where.split()[0] if where else "VALUE"
        reason = cause.strip().splitlines()[0]
        variable = re.search(r"Environment variable '(\w+)' not found", reason)
        if variable:
            # The value at the top that reads it is what a user would rather set.
            text = OmegaConf.to_yaml(cfg)
            top = re.search(rf"^(\w+): .*oc\.env:{variable[1]}\b", text, re.MULTILINE)
            raise ValueError(
                f"{where} needs the environment, where there is no {variable[1]}. Set the variable "
                f"{variable[1]}, or {top[1] if top else where}=VALUE."
            ) from error
        raise ValueError(
            f"{where} cannot be read: {reason}. Set what it refers to, or {where}=VALUE."
        ) from error

"""Which classes and functions a configuration may name by `_target_`.

A configuration is data: it comes with a run from elsewhere, and whoever resumes that run has not
read it. So what it names is looked at after it is found, and only what makes the parts of a run
passes. Nothing is imported to find out, but packages that are listed here, modules in the folder
where the command is typed, and what the user adds.
"""

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import ListConfig, OmegaConf

OURS = "lightning_distill"
# Packages whose classes may be named, and those that these must derive from.
CLASSES: dict[str, tuple[str, ...]] = {
    "torch.nn": ("torch.nn.Module",),
    "torch.optim": ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    "torchmetrics": ("torchmetrics.Metric", "torchmetrics.MetricCollection"),
    "lightning": (
        "lightning.Trainer",
        "lightning.Callback",
        "lightning.pytorch.loggers.Logger",
        "lightning.pytorch.strategies.Strategy",
        "lightning.pytorch.profilers.Profiler",
    ),
    "transformers": (
        "transformers.PreTrainedModel",
        "transformers.PretrainedConfig",
        "transformers.PreTrainedTokenizerBase",
        "torch.optim.Optimizer",
    ),
    "peft": ("peft.PeftConfig",),
}
CLASSES["pytorch_lightning"] = CLASSES["lightning"]
# How the names of functions begin that make something or compute; all others may load, download,
# write or start something.
FUNCTIONS = (
    "lightning_distill.criteria.",
    "torch.nn.functional.",
    "torch._C._nn.",
    "torch.nn.init.",
    "torch.optim.swa_utils.get_",
    "transformers.optimization.get_",
)
# Rooms of ours whose functions by public names make a part of a run.
MAKERS = ("students", "teachers", "run")
JOBS = "lightning_distill.jobs."
# The key by which a user adds to them, where it is typed.
KEY = "allow_targets"

# What the user has added to this process's run, and the run's folder where it came from elsewhere.
_added: list[str] = []
_foreign: list[Path] = []
# Where the command was typed; a run that goes on may work in another folder.
_typed: list[Path] = []


def allow(names: Any, foreign: Path | None = None) -> None:
    """Begin a run: say what its user adds.

    Args:
        names: packages, modules or single targets, or `None`.
        foreign: the folder of a run that goes on; modules within it are not the user's.

    Raises:
        ValueError: for anything but a list of names.
    """
    names = [] if names is None else names
    if not isinstance(names, list | tuple | ListConfig) or not all(_is_name(n) for n in names):
        raise ValueError(f"`{KEY}` must be a list of names, as in {KEY}=[timm], got {names!r}.")
    _added[:] = [str(name) for name in names]
    _foreign[:] = [] if foreign is None else [foreign.resolve()]
    _typed[:] = [Path.cwd().resolve()]


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def check_targets(cfg: Any) -> None:
    """Refuse a configuration in which any `_target_`, at any depth, names what it may not.

    Args:
        cfg: of a run, or a part of it; values that refer to others are looked at as what they
            become.

    Raises:
        ValueError: naming the place, what it names, and what is allowed.
    """
    told = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    for where, target in _targets(told):
        try:
            found = find(target)
        except ValueError as error:
            raise ValueError(f"{where or '_target_'}: {error}") from error
        is_job = f"{_name(found)}.".startswith(JOBS)
        if is_job != (where == "job._target_") and _name(found).startswith(f"{OURS}."):
            role = "a job, and only `job`" if is_job else "no job, and `job`"
            raise ValueError(f"{where}: {target} is {role} may name one.")


def find(target: Any) -> Any:
    """The class or function of this name, if a configuration may name it.

    Raises:
        ValueError: if there is none, or if it may not.
    """
    if not isinstance(target, str):
        raise ValueError(f"a `_target_` is the name of a class or function, got {target!r}.")
    if not _is_name(target) or "__" in target:
        raise ValueError(f"{target!r} names no class or function, as my_file.MyClass does.")
    _check_origin(target)
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{target} cannot be found: {reason}") from error
    if not _is_allowed(found, target):
        told = _name(found)
        also = "" if told == target else f" (which is {told})"
        raise ValueError(f"{target}{also} may not be named by a configuration. {_ways(target)}")
    return found


def instantiate(node: Any, **options: Any) -> Any:
    """As `hydra.utils.instantiate`, of what may be named."""
    check_targets(node)
    return hydra.utils.instantiate(node, **options)


def _targets(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            inner = f"{where}.{name}" if where else str(name)
            if name == "_target_":
                yield inner, value
            yield from _targets(value, inner)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _targets(value, f"{where}[{number}]")


def _check_origin(target: str) -> None:
    """Refuse a name before its module is imported, which runs what is in it."""
    top = target.partition(".")[0]
    if top == OURS or _within(target, (*CLASSES, *_added)):
        return
    if _is_users(top):
        if not _is_foreign():
            return
        raise ValueError(
            f"{target} is in the folder of the run that goes on, and may have come with it. If you "
            f"know what it does, add it: {KEY}=[{top}]."
        )
    taken = [name for name in (f"{top}.py", top) if (_here() / name).exists()]
    if taken:
        raise ValueError(
            f"{target} is looked for in the installed package {top}, which has the name of "
            f"{taken[0]} in this folder: rename yours."
        )
    if importlib.util.find_spec(top) is None:
        raise ValueError(
            f"{target} cannot be found: there is no {top}.py in {_here()}, nor a package {top}."
        )
    raise ValueError(f"{target} may not be named by a configuration. {_ways(target)}")


def _is_users(top: str) -> bool:
    """Whether a module is in the folder where the command is typed."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    # A package lies in its folder, a module in a file; what is built in lies nowhere.
    places = list(spec.submodule_search_locations or ([spec.origin] if spec.has_location else []))
    return bool(places) and all(Path(place).resolve().parent == _here() for place in places)


def _is_foreign() -> bool:
    """Whether the command is typed in the folder of a run that goes on, or within it."""
    return any(_here().is_relative_to(folder) for folder in _foreign)


def _here() -> Path:
    return _typed[0] if _typed else Path.cwd().resolve()


def _is_allowed(found: Any, target: str) -> bool:
    while isinstance(found, functools.partial):
        found = found.func
    name = _name(found)
    if _within(target, _added) or _within(name, _added):
        return True
    top = name.partition(".")[0]
    if inspect.isclass(found):
        if top == OURS or _is_users(top):
            return True
        return any(
            _within(name, [package]) and issubclass(found, _resolved(bases))
            for package, bases in CLASSES.items()
        )
    owner = getattr(found, "__self__", None)
    if inspect.isclass(owner):
        # A model made of its configuration; `from_pretrained` loads, for which there is ours.
        own = _is_users(owner.__module__.partition(".")[0])
        auto = owner.__module__.startswith("transformers.models.auto.")
        return own or (found.__name__ in ("from_config", "_from_config") and auto)
    if _is_users(top):
        return True
    rooms = [importlib.import_module(f"{OURS}.{room}") for room in MAKERS] if top == OURS else []
    if any(vars(room).get(found.__name__) is found for room in rooms):
        return True
    return any(name.startswith(known) for known in (*FUNCTIONS, JOBS))


def _name(found: Any) -> str:
    if inspect.ismodule(found):
        return found.__name__
    of = found if hasattr(found, "__qualname__") else type(found)
    return f"{of.__module__}.{of.__qualname__}"


@functools.cache
def _resolved(bases: tuple[str, ...]) -> tuple[type, ...]:
    return tuple(hydra.utils.get_class(base) for base in bases)


def _within(name: str, packages: Any) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _ways(target: str) -> str:
    top = target.partition(".")[0]
    return (
        "Allowed are the classes of lightning_distill, torch.nn, torch.optim, torchmetrics, "
        "Lightning's Trainer, callbacks, loggers, strategies and profilers, models, configurations "
        "and tokenizers of transformers, and modules in the folder where the command is typed. If "
        f"you know what it does, add it: {KEY}=[{top}]."
    )

"""What a configuration may name by `_target_`, and the only place where it is made.

A configuration is a program: whatever it names is called. One that came from elsewhere shall be
able to name no more than what a run is made of.
"""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra.utils
import lightning as L
import transformers
from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric, MetricCollection

from ..allowed_names import check_names, OURS, refusal

# Of these packages nothing is imported nor called but classes of these kinds.
KINDS: dict[str, tuple[type, ...]] = {
    "torch.nn": (nn.Module,),
    "torch.optim": (Optimizer, LRScheduler),
    "torchmetrics": (Metric, MetricCollection),
    "lightning": (L.Trainer, L.Callback, Logger, Strategy, Profiler),
    "transformers": (
        transformers.PreTrainedModel,
        transformers.PreTrainedConfig,
        transformers.PreTrainedTokenizerBase,
        Optimizer,
    ),
    "peft": (),
}
JOBS = Path(__file__).parent.parent / "jobs"
# Rooms of this package whose public names may be named; `job` names one of `jobs`.
ROOMS = (
    *("criteria", "balance", "metrics", "callbacks", "data", "students", "teachers", "tasks"),
    *("temperatures", "weights", "objective", "run", "sparsity"),
)


@dataclass(frozen=True)
class Trust:
    """What else the user trusts, as typed.

    Attributes:
        added: packages, modules or single objects by their dotted names.
        run: the directory of a run that goes on; what came with it is not the user's own.
        folder: where the command is typed; a run that goes on may work in another one.
    """

    added: tuple[str, ...] = ()
    run: Path | None = None
    folder: str | None = None


# Of the command that is under way, and so of its process.
_trust = Trust()


@contextmanager
def trusting(added: Any = (), run: Path | None = None) -> Iterator[None]:
    """What the user trusts in the meantime.

    Args:
        added: packages, modules or single objects by their dotted names.
        run: the directory of a run that came from elsewhere, or may have.

    Raises:
        ValueError: if `allow_targets` is no list of dotted names.
    """
    global _trust
    names = check_names(added)
    before = _trust
    _trust = Trust(names, run, os.path.realpath(os.getcwd()))
    try:
        yield
    finally:
        _trust = before


def _folder() -> str:
    """Where the command is typed."""
    return _trust.folder or os.path.realpath(os.getcwd())


def instantiate(node: Any, **options: Any) -> Any:
    """As `hydra.utils.instantiate`, of what may be named only.

    Raises:
        ValueError: as [`check_targets`][].
    """
    check_targets(node)
    return hydra.utils.instantiate(node, **options)


def check_targets(node: Any) -> None:
    """Look at every `_target_` of a configuration, before any is called.

    Raises:
        ValueError: for the first that may not be named, or is not there.
    """
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    for where, target in _targets(plain, ()):
        if where == ("job", "_target_"):
            find_job(target)
        else:
            find_target(target, ".".join(where))


def _targets(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            here = (*path, str(key))
            if key == "_target_" and value not in (None, "???"):
                yield here, value
            yield from _targets(value, here)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _targets(value, (*path, str(i)))


def find_job(target: Any) -> Any:
    """The job of this name: one of ours, or a function of the user's own.

    Raises:
        ValueError: for anything else.
    """
    where = "job._target_"
    found = _located(target, where)
    # Each of ours is a function in a file of its name.
    names = sorted(path.stem for path in JOBS.glob("[a-z]*.py"))
    ours = [f"{OURS}.jobs.{name}.{name}" for name in names]
    if _full_name(found) in ours or (callable(found) and _is_users(target, found)):
        return found
    raise ValueError(
        f"{where}={target} is no job. Choose one of {', '.join(names)}, as in job=distill, or a "
        "function of a file in the folder where the command is typed."
    )


def find_target(target: Any, where: str = "_target_") -> Any:
    """The class or function of this name.

    Args:
        target: its dotted name.
        where: the key of the configuration.

    Raises:
        ValueError: if a configuration may not name it, or if it is not there.
    """
    found = _located(target, where)
    if _is_offered(found) or _is_users(target, found):
        return found
    raise refusal(target, where, _full_name(found))


def _located(target: Any, where: str) -> Any:
    """What lies under a name; only what may be imported is, for importing runs code."""
    parts = target.split(".") if isinstance(target, str) else []
    odd = [p for p in parts if not p.isidentifier() or (p.startswith("__") and p != "__main__")]
    if odd or len(parts) < 2:
        raise ValueError(f"{where} must be a name such as module.Class, got {target!r}.")
    if not _may_import(target, where):
        raise refusal(target, where, target)
    try:
        found: Any = importlib.import_module(parts[0])
        for i, part in enumerate(parts[1:], 2):
            inner = isinstance(found, ModuleType) and not hasattr(found, part)
            path = ".".join(parts[:i])
            found = importlib.import_module(path) if inner else getattr(found, part)
            if isinstance(found, ModuleType) and not _may_hold(found.__name__, path):
                raise refusal(target, where, ".".join([found.__name__, *parts[i:]]))
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where}={target} cannot be found: {error}") from error
    return found


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _may_import(target: str, where: str) -> bool:
    """Whether modules of this name may be imported to find out what it is."""
    if _within(target, (OURS, *KINDS, *_trust.added)):
        return True
    return _is_own_module(target.partition(".")[0], target, where)


def _may_hold(module: str, path: str) -> bool:
    # On the way to what was named, nothing is entered that could not be named itself.
    packages = (OURS, *KINDS, *_trust.added)
    above = any(package.startswith(f"{module}.") for package in packages)
    return above or _within(module, packages) or _is_own_module(module.partition(".")[0])


def _is_own_module(top: str, target: str = "", where: str = "") -> bool:
    """Whether a module or package lies in the folder where the command is typed.

    Raises:
        ValueError: if it does, but Python knows another of its name, when `target` is given.
    """
    folder = _folder()
    if not any(os.path.exists(os.path.join(folder, name)) for name in (f"{top}.py", top)):
        return False
    importlib.invalidate_caches()
    loaded = sys.modules.get(top)
    try:
        spec = importlib.util.find_spec(top) if loaded is None else loaded.__spec__
    except ValueError:
        spec = None
    places = _places(spec)
    if not any(os.path.realpath(place) == folder for place in places):
        if target and spec is not None:
            raise ValueError(
                f"{where}={target} would be {os.path.join(folder, top)}, but the name {top!r} is "
                f"taken by {spec.origin or 'another package'}: give your file another name."
            )
        return False
    return True


def _places(spec: Any) -> list[str]:
    """The folders that a top module or package lies in."""
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [os.path.dirname(p) for p in spec.submodule_search_locations]
    return [os.path.dirname(spec.origin)] if spec.has_location and spec.origin else []


def _full_name(found: Any) -> str:
    """Where it was defined, which its name in a configuration need not say."""
    if isinstance(found, ModuleType):
        return found.__name__
    module = getattr(found, "__module__", None) or type(found).__module__
    return f"{module}.{getattr(found, '__qualname__', type(found).__qualname__)}"


def _is_offered(found: Any) -> bool:
    """Whether it is one of the classes and factories that a run is made of."""
    if _is_one_of(found, _ours()):
        return True
    name = _full_name(found)
    if inspect.isfunction(found):
        schedule = re.fullmatch(r"transformers\.optimization\.get_\w*schedule\w*", name)
        return schedule is not None
    if not isinstance(found, type):
        return False
    return any(
        _within(name, [package]) and issubclass(found, kinds or _kinds_of_peft())
        for package, kinds in KINDS.items()
    )


def _kinds_of_peft() -> tuple[type, ...]:
    # An extra of this package.
    return (importlib.import_module("peft").PeftConfig,)


def _ours() -> tuple[Any, ...]:
    offered: list[Any] = []
    for room in ROOMS:
        module = importlib.import_module(f"{OURS}.{room}")
        offered += [getattr(module, name) for name in module.__all__]
    schedules = importlib.import_module(f"{OURS}.schedules")
    offered += [value for value in vars(schedules).values() if isinstance(value, type)]
    package = importlib.import_module(OURS)
    offered += [
        package.DistillationModule,
        package.OnPolicyDistillationModule,
        package.TheseusModule,
    ]
    return tuple(value for value in offered if callable(value))


def _is_one_of(found: Any, those: Sequence[Any]) -> bool:
    return any(found is one for one in those)


def _is_users(target: str, found: Any) -> bool:
    """Whether the user wrote it, or has said that it may be named."""
    if isinstance(found, ModuleType):
        return False
    if not (isinstance(found, type) or inspect.isroutine(found)):
        # An object, such as a partial function, belongs to the file that it is found in.
        name = target
    else:
        name = _full_name(found)
    if _within(name, _trust.added):
        return True
    top = name.partition(".")[0]
    return _is_own_module(top) and not _came_with_run(name)


def _came_with_run(name: str) -> bool:
    """Whether a module lies in the run's folder, or the two in one folder that was received."""
    if _trust.run is None:
        return False
    run, folder = _trust.run.resolve(), Path(_folder())
    top = folder / name.partition(".")[0]
    parts = name.split(".")
    loaded = [sys.modules.get(".".join(parts[:i])) for i in range(1, len(parts) + 1)]
    files = [Path(m.__file__).resolve() for m in loaded if m is not None and m.__file__]
    return top.resolve() in (run, *run.parents) or any(run in file.parents for file in files)

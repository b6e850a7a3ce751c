"""Turn large trained models into small ones with PyTorch Lightning.

The public names are imported on first use, so that the command line answers `--help`
without loading torch.
"""

from importlib import import_module
from typing import Any, TYPE_CHECKING

from .moved import put_up

if TYPE_CHECKING:
    from .metrics import Agreement
    from .objective import IntermediateLayers, Objective, Term
    from .training.distill import distill
    from .training.module import DistillationModule
    from .training.on_policy import OnPolicyDistillationModule
    from .training.theseus import TheseusModule

__version__ = "0.1.0"

put_up()

__all__ = [
    "Agreement",
    "DistillationModule",
    "IntermediateLayers",
    "Objective",
    "OnPolicyDistillationModule",
    "Term",
    "TheseusModule",
    "distill",
]

_HOMES = {
    "Agreement": "metrics",
    "DistillationModule": "training",
    "IntermediateLayers": "objective",
    "Objective": "objective",
    "OnPolicyDistillationModule": "training",
    "Term": "objective",
    "TheseusModule": "training",
    "distill": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

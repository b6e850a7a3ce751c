"""Turn large trained models into small ones with PyTorch Lightning.

The public names are imported on first use, so that the command line answers `--help`
without loading torch.
"""

from importlib import import_module
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from .distillation import distill
    from .intermediate_layers import IntermediateLayers
    from .metrics import Agreement
    from .module import DistillationModule
    from .objective import Objective, Term
    from .on_policy import OnPolicyDistillationModule

__version__ = "0.1.0"

__all__ = [
    "Agreement",
    "DistillationModule",
    "IntermediateLayers",
    "Objective",
    "OnPolicyDistillationModule",
    "Term",
    "distill",
]

_HOMES = {
    "Agreement": "metrics",
    "DistillationModule": "module",
    "IntermediateLayers": "intermediate_layers",
    "Objective": "objective",
    "OnPolicyDistillationModule": "on_policy",
    "Term": "objective",
    "distill": "distillation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

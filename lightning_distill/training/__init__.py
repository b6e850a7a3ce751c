"""One training step and one evaluation, for Lightning."""

from .distill import distill
from .module import DistillationModule
from .on_policy import OnPolicyDistillationModule
from .replay_buffer import ReplayBuffer
from .theseus import TheseusModule

__all__ = [
    "DistillationModule",
    "OnPolicyDistillationModule",
    "ReplayBuffer",
    "TheseusModule",
    "distill",
]

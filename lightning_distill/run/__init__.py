"""A run of the command: its directory, its stages, and its objects made from a configuration."""

from .cached_teacher import cached_teacher
from .caching_teacher import caching_teacher
from .lora_student import lora_student
from .projected_student import projected_student
from .pruned_student import pruned_student
from .trained_teacher import trained_teacher

__all__ = [
    "cached_teacher",
    "caching_teacher",
    "lora_student",
    "projected_student",
    "pruned_student",
    "trained_teacher",
]

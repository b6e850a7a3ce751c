"""Students: fresh from a configuration, loaded, cut from the teacher, of timm, or with adapters."""

from .from_config import from_config
from .from_teacher import from_teacher
from .lora import lora
from .of_timm import timm
from .pretrained import pretrained

__all__ = ["from_config", "from_teacher", "lora", "pretrained", "timm"]

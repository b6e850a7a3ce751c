"""Students: fresh, loaded, cut from the teacher, of timm, with adapters, or rounded in training."""

from .from_config import from_config
from .from_teacher import from_teacher
from .lora import lora
from .of_timm import timm
from .pretrained import pretrained
from .quantized import quantized
from .vocabulary_cut import cut_vocabulary

__all__ = [
    "cut_vocabulary",
    "from_config",
    "from_teacher",
    "lora",
    "pretrained",
    "quantized",
    "timm",
]

"""Where the teacher's answers come from."""

from .fingerprint import fingerprint
from .pretrained import pretrained

__all__ = ["fingerprint", "pretrained"]

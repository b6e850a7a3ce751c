"""Where the teacher's answers come from."""

from ..models.fingerprint import fingerprint
from .cached import CachedTeacher
from .caching import CachingTeacher
from .of_timm import timm
from .pretrained import pretrained
from .teacher import Teacher

__all__ = ["CachedTeacher", "CachingTeacher", "Teacher", "fingerprint", "pretrained", "timm"]

"""Where the teacher's answers come from."""

from ..models.fingerprint import fingerprint
from .cached import CachedTeacher
from .caching import CachingTeacher
from .pretrained import pretrained

__all__ = ["CachedTeacher", "CachingTeacher", "fingerprint", "pretrained"]

"""Where the teacher's answers come from."""

from .cached import CachedTeacher
from .caching import CachingTeacher
from .fingerprint import fingerprint
from .pretrained import pretrained

__all__ = ["CachedTeacher", "CachingTeacher", "fingerprint", "pretrained"]

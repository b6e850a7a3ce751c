"""Students: fresh from a configuration, loaded, or cut from the teacher."""

from .from_config import from_config
from .from_teacher import from_teacher
from .pretrained import pretrained

__all__ = ["from_config", "from_teacher", "pretrained"]

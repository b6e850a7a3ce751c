"""Where what is worth keeping between runs lies: trained teachers and tokens."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$LIGHTNING_DISTILL_CACHE`, or `lightning_distill` in the user's cache folder."""
    own = os.environ.get("LIGHTNING_DISTILL_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lightning_distill"

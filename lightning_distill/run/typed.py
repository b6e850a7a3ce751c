"""Values as they can be typed back into a shell and read by Hydra."""

import re
import shlex
from typing import Any

# What Hydra reads as it stands, and no shell changes.
PLAIN = re.compile(r"[A-Za-z0-9_./@:+-]+")


def typed(key: str, value: Any) -> str:
    """`key=value`, quoted where that is needed.

    Args:
        key: of the configuration.
        value: a path or another text.
    """
    text = str(value)
    if PLAIN.fullmatch(text):
        return f"{key}={text}"
    # Within quotes Hydra takes backslashes only before quotes, and reads `${` as a reference.
    inner = re.sub(r'(\\*)(")', lambda m: m[1] * 2 + '\\"', text).replace("${", "\\${")
    inner += "\\" * (len(inner) - len(inner.rstrip("\\")))
    return shlex.quote(f'{key}="{inner}"')

"""What a run is made with."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("lightning-distill", "torch", "transformers", "safetensors")


def versions_here(more: Sequence[str] = ()) -> dict[str, str]:
    """The versions of Python and of the libraries that its figures depend on, by name.

    Args:
        more: further packages; those that are not installed are left out.
    """
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

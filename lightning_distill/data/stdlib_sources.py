"""The sources of Python's standard library, beside the running interpreter."""

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_PASSED_OVER = frozenset(
    {"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"}
)


def stdlib_folder() -> Path:
    """Where the running interpreter has its standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_sources(root: Path) -> Iterator[Path]:
    """Python files below `root`, in the order of their names; no installed packages, no tests."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in _PASSED_OVER)
        for path in (Path(folder, name) for name in sorted(files) if name.endswith(".py")):
            # Debian and others keep build folders here, such as config-3.11-x86_64-linux-gnu.
            if path.relative_to(root).parts[0].removesuffix(".py").isidentifier():
                yield path


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a file; `None` if it cannot be read or does not parse."""
    try:
        with warnings.catch_warnings():
            # Old sources hold escapes that newer Pythons warn about; not the user's concern.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, RecursionError, SyntaxError, ValueError):
        return None

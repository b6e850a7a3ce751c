"""Real text that every Python installation carries: the docstrings of its standard library."""

import ast
import functools
import inspect
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..stdlib_sources import parsed, stdlib_folder, stdlib_sources

_SHORTEST = 20


def stdlib_docstrings(packages: int = 16) -> tuple[list[str], list[str]]:
    """Docstrings of Python's own standard library and the package of each.

    The docstrings of modules, classes and functions are parsed from the sources beside
    the running interpreter; nothing is imported and nothing downloaded. The package is
    what one would import: `email` for `email/message.py`, `tarfile` for `tarfile.py`.
    Installed packages and folders of tests are left out, as are docstrings of fewer than
    20 characters. A docstring that a package repeats is kept once, one that occurs in
    two packages is dropped, and a file that does not parse is passed over.

    Which packages are the largest, and so the texts, differ between Python versions and
    distributions; on one installation texts and order are always the same.

    Args:
        packages: how many packages to keep: those with the most docstrings.

    Returns:
        The texts and, of the same length, the name of each text's package.

    Raises:
        ValueError: `packages` is not positive, or the library has fewer of them.
        RuntimeError: this Python has no standard library sources, or none with docstrings.
    """
    if packages < 1:
        raise ValueError(
            f"`packages` must be at least 1, got {packages}. "
            "It says how many of the largest packages become classes; the default is 16."
        )
    texts, names = _docstrings_under(stdlib_folder())
    # The name breaks ties, so that the choice does not hang on the order of a folder.
    largest = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    if packages > len(largest):
        raise ValueError(
            f"`packages` must be at most {len(largest)}, got {packages}: this Python's "
            "standard library has no more packages with docstrings."
        )
    kept = {name for name, _ in largest[:packages]}
    rows = [(text, name) for text, name in zip(texts, names, strict=True) if name in kept]
    return [text for text, _ in rows], [name for _, name in rows]


@functools.cache
def _docstrings_under(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every distinct docstring below `root` that belongs to one package only, in file order."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for path in stdlib_sources(root):
        package = path.relative_to(root).parts[0].removesuffix(".py")
        for text in _docstrings(path):
            homes[text].add(package)
    rows = [(text, *names) for text, names in homes.items() if len(names) == 1]
    if not rows:
        raise RuntimeError(
            f"Expected the standard library's sources (.py files with docstrings) in {root}, "
            "found none: this Python carries its library as a zip or without sources. "
            "Use a Python installed with its sources, or choose your own texts with "
            "`data=text_files`."
        )
    return tuple(text for text, _ in rows), tuple(name for _, name in rows)


def _docstrings(path: Path) -> Iterator[str]:
    """Docstrings of one file's module, classes and functions; none if it does not parse."""
    tree = parsed(path)
    if tree is None:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()
            if len(text) >= _SHORTEST:
                yield text

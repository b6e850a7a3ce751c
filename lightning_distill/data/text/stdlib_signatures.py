"""Signatures of functions of Python's standard library, and what their arguments are by default."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from ..stdlib_sources import parsed, stdlib_folder, stdlib_sources

# An argument's name, and where its default begins.
Default = tuple[str, int, str]


@functools.cache
def stdlib_signatures() -> tuple[tuple[str, tuple[Default, ...]], ...]:
    """Every distinct signature with two defaults or more, in the order of the files.

    Nothing is imported and nothing downloaded; a file that does not parse is passed over.

    Returns:
        The signature, such as `open(file, mode='r', buffering=-1)`, and of each argument with a
        default its name, the letter at which the default begins, and the default.

    Raises:
        RuntimeError: this Python has no sources of its standard library.
    """
    root = stdlib_folder()
    found: dict[str, tuple[Default, ...]] = {}
    for path in stdlib_sources(root):
        for text, defaults in _signatures(path):
            found.setdefault(text, defaults)
    if not found:
        raise RuntimeError(
            f"Expected the standard library's sources (.py files) in {root}, found none: use a "
            "Python installed with its sources, or questions of your own with data=question_files."
        )
    return tuple(found.items())


def _signatures(path: Path) -> Iterator[tuple[str, tuple[Default, ...]]]:
    tree = parsed(path)
    if tree is None:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = f"{node.name}({ast.unparse(node.args)})"
        pairs = [*zip(reversed(node.args.args), reversed(node.args.defaults), strict=False)]
        defaults = []
        for argument, default in reversed(pairs):
            value = ast.unparse(default)
            at = re.search(rf"\b{argument.arg}(: [^=]*)?=", text)
            if at is not None and text.startswith(value, at.end()):
                defaults.append((argument.arg, at.end(), value))
        if len(defaults) > 1:
            yield text, tuple(defaults)

"""Built-in pairs: a function of Python's standard library, and what its docstring says first."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from ..stdlib_sources import parsed, stdlib_folder, stdlib_sources
from .pairs import PairDataModule

# Docstrings that say nothing, and functions that are no summary of one line.
SHORTEST, LONGEST = 12, 120


class FunctionDocs(PairDataModule):
    """Write the first line of a function's docstring from its source.

    The functions are those of the standard library beside the running interpreter; nothing is
    imported and nothing downloaded. The docstring itself is left out of the source, and so are
    comments. Every module is in one split, by a hash of its path: about a tenth is for testing and
    a tenth for validation.

    Args:
        rows: so many at most, chosen by a hash; all by default.
        options: those of [`PairDataModule`][lightning_distill.data.PairDataModule].

    Raises:
        RuntimeError: if this Python has no sources.
    """

    def __init__(self, rows: int | None = None, **options: Any):
        super().__init__(**options)
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 20):
            raise ValueError(f"`rows` must be a whole number of 20 at least, got {rows!r}.")
        self.rows = rows

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources, and deal their functions to the splits."""
        root = stdlib_folder()
        found: dict[tuple[str, str], tuple[bytes, str]] = {}
        for path in stdlib_sources(root):
            share = int(_digest(path.relative_to(root).as_posix()).hex(), 16) % 10
            split = {0: "test", 1: "validation"}.get(share, "train")
            for pair in functions_of(path):
                found.setdefault(pair, (_digest("\n".join(pair)), split))
        chosen = sorted(found, key=lambda pair: found[pair][0])[: self.rows]
        splits = {
            name: [pair for pair in chosen if found[pair][1] == name]
            for name in ("train", "validation", "test")
        }
        if not all(splits.values()):
            counts = ", ".join(f"{len(pairs)} for {name}" for name, pairs in splits.items())
            raise RuntimeError(
                f"Expected functions with docstrings in {root}, found too few ({counts}): this "
                "Python carries its library as a zip or without sources, or data.rows is too "
                "small. Use a Python installed with its sources, or choose data=pair_files."
            )
        return {
            name: datasets.Dataset.from_dict(
                {self.source: [s for s, _ in pairs], self.target: [t for _, t in pairs]}
            )
            for name, pairs in splits.items()
        }


def functions_of(path: Path) -> Iterator[tuple[str, str]]:
    """Source and first line of the docstring of every function in a file; none if it has errors."""
    tree = parsed(path)
    if tree is None:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = (ast.get_docstring(node) or "").strip().split("\n\n")[0]
        line = " ".join(said.split())
        if SHORTEST <= len(line) <= LONGEST and len(node.body) > 1:
            node.body = node.body[1:]
            yield ast.unparse(node), line


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()

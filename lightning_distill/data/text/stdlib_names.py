"""Lines of Python's standard library, and what the names in them stand for."""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ..stdlib_sources import parsed, stdlib_folder, stdlib_sources

# The words of a line, and the tag of each.
Line = tuple[tuple[str, ...], tuple[str, ...]]
# Of a name in a file: line and column of its first letter, and what it stands for.
Names = dict[tuple[int, int], tuple[str, str]]

KINDS = ("class", "exception", "function", "module", "parameter", "variable")
# All tags, sorted: an installation may have few names of a kind, and none in the training lines.
TAGS = (*(f"{part}-{kind}" for part in "BI" for kind in KINDS), "O")
SHORTEST, LONGEST = 5, 40
# The longest string, in letters, that counts as a word.
LONGEST_STRING = 20
LINES_OF_FILE = 20
_PASSED_OVER = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT})
_WORDS = frozenset({tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING})


def stdlib_names(rows: int) -> dict[str, list[Line]]:
    """Distinct lines with names that have tags: about a fifth for testing, a tenth for validation.

    A name is a whole dotted one, such as `os.path.join`. Its tag says what it stands for in its
    line, in BIO: `module` (imported), `class` (defined, or a base), `function` (defined or called),
    `exception` (raised or caught), `parameter` (of a definition or by name in a call) or `variable`
    (assigned). Lines of 5 to 40 words count, and those alone that all Python versions split
    alike: without f-strings, long strings or letters beyond ASCII. A file gives at most 20 lines,
    and all of them to one split. Files are read in the order of a hash of their paths until there
    are enough lines. Nothing is imported and nothing downloaded.

    Args:
        rows: how many lines in all, at most.

    Returns:
        By split, words and their tags.

    Raises:
        RuntimeError: this Python has no sources of its standard library, or too few for a split.
    """
    root = stdlib_folder()
    paths = sorted(stdlib_sources(root), key=lambda path: _hashed(path.relative_to(root)))
    found: dict[str, list[Line]] = {"train": [], "validation": [], "test": []}
    seen: set[Line] = set()
    for number, path in enumerate(paths):
        lines = [line for line in dict.fromkeys(lines_of(path)) if line not in seen]
        chosen = lines[:: -(-len(lines) // LINES_OF_FILE) or 1][: rows - len(seen)]
        seen.update(chosen)
        split = {0: "test", 1: "test", 2: "validation"}.get(number % 10, "train")
        found[split] += chosen
        if len(seen) == rows:
            break
    if not all(found.values()):
        counts = ", ".join(f"{len(lines)} for {split}" for split, lines in found.items())
        raise RuntimeError(
            f"Expected lines with names in the Python sources in {root}, found too few ({counts}): "
            "this Python carries its library as a zip or without sources, or data.rows is too "
            "small. Use a Python installed with its sources, or choose data=token_files."
        )
    return found


def _hashed(path: Path) -> bytes:
    return hashlib.sha256(path.as_posix().encode()).digest()


def lines_of(path: Path) -> Iterator[Line]:
    """Words and tags of a file's logical lines; none if it has errors."""
    tree = parsed(path)
    if tree is None:
        return
    source = path.read_bytes()
    if not source.isascii():
        # Columns of the tree count bytes, and those of tokens letters.
        return
    # `splitlines` would take a form feed for the end of a line.
    lines = io.StringIO(source.decode(), newline=None).readlines()
    names = _names(tree, lines)
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type == tokenize.NEWLINE:
            if SHORTEST <= len(line) <= LONGEST and all(_is_word(word) for word in line):
                tags = tuple(_tags(line, names))
                if any(tag != "O" for tag in tags):
                    yield tuple(word.string for word in line), tags
            line = []
        elif token.type not in _PASSED_OVER:
            line.append(token)


def _is_word(token: tokenize.TokenInfo) -> bool:
    if token.type == tokenize.STRING:
        # Python 3.12 and later split f-strings.
        text = token.string
        return len(text) <= LONGEST_STRING and not ({"f", "F"} & set(text[:2]) or " " in text)
    return token.type in _WORDS


def _tags(line: list[tokenize.TokenInfo], names: Names) -> Iterator[str]:
    left, kind = "", ""
    for token in line:
        if left.startswith(token.string):
            left = left[len(token.string) :]
            yield f"I-{kind}"
        elif token.type == tokenize.NAME and token.start in names:
            left, kind = names[token.start]
            left = left[len(token.string) :]
            yield f"B-{kind}"
        else:
            left = ""
            yield "O"


def _names(tree: ast.Module, lines: list[str]) -> Names:
    """What the names of a file stand for, by where they begin."""
    found: Names = {}

    def add(name: str | None, line: int, column: int, kind: str) -> None:
        # A name that is written with spaces or over two lines is none.
        if name and lines[line - 1].startswith(name, column):
            found.setdefault((line, column), (name, kind))

    def expression(node: ast.AST | None, kind: str) -> None:
        if isinstance(node, ast.Name | ast.Attribute):
            add(_dotted(node), node.lineno, node.col_offset, kind)

    for node in ast.walk(tree):
        # What raises comes before what is called in it, and the first kind stays.
        match node:
            case ast.Import():
                for alias in node.names:
                    add(alias.name, alias.lineno, alias.col_offset, "module")
            case ast.ImportFrom():
                add(node.module, node.lineno, node.col_offset + len("from "), "module")
            case ast.ClassDef():
                add(node.name, node.lineno, node.col_offset + len("class "), "class")
                for each in node.bases:
                    expression(each, "class")
            case ast.FunctionDef():
                add(node.name, node.lineno, node.col_offset + len("def "), "function")
            case ast.AsyncFunctionDef():
                add(node.name, node.lineno, node.col_offset + len("async def "), "function")
            case ast.arg() | ast.keyword():
                add(node.arg, node.lineno, node.col_offset, "parameter")
            case ast.Raise():
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                expression(raised, "exception")
            case ast.ExceptHandler():
                for one in node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]:
                    expression(one, "exception")
            case ast.Name(ctx=ast.Store()) | ast.Attribute(ctx=ast.Store()):
                expression(node, "variable")
            case ast.Call():
                expression(node.func, "function")
    return found


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c`; none for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None

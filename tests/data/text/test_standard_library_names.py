import ast
import re

import pytest

from lightning_distill.data import StandardLibraryNames
from lightning_distill.data.text.stdlib_names import lines_of, stdlib_names

SOURCE = """\
from os.path import join as j
import os.path, sys
class Own(base.Known, metaclass=Meta):
    async def run(self, *rows, key=None):
        raise errors.Bad('x')
        raise
    def end(self): return self.rows.pop(key=1)
try: total.rows = first, second = a.b(c)
except (KeyError, own.Fault) as e: pass
long = 'a string with words in it' + other
made(x)(y).z(w)
letters = f'{a}' + b + c
"""
TAGGED = """\
from os/B-module ./I-module path/I-module import join as j
import os/B-module ./I-module path/I-module , sys/B-module
class Own/B-class ( base/B-class ./I-class Known/I-class , metaclass/B-parameter = Meta ) :
async def run/B-function ( self/B-parameter , * rows/B-parameter , key/B-parameter = None ) :
raise errors/B-exception ./I-exception Bad/I-exception ( 'x' )
def end/B-function ( self/B-parameter ) : return self/B-function ./I-function rows/I-function \
./I-function pop/I-function ( key/B-parameter = 1 )
try : total/B-variable ./I-variable rows/I-variable = first/B-variable , second/B-variable = \
a/B-function ./I-function b/I-function ( c )
except ( KeyError/B-exception , own/B-exception ./I-exception Fault/I-exception ) as e : pass
made/B-function ( x ) ( y ) . z ( w )
"""


def test_names_are_tagged_by_what_they_stand_for(tmp_path):
    (tmp_path / "own.py").write_text(SOURCE)
    found = [
        " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in zip(*line, strict=True))
        for line in lines_of(tmp_path / "own.py")
    ]
    # Longer strings and f-strings are left out, and a line without any name.
    assert found == TAGGED.splitlines()


@pytest.mark.parametrize("text", ["def f(:", "x = 'ä' + abc(d)", ""])
def test_a_file_that_cannot_be_read_alike_by_all_has_no_lines(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    assert list(lines_of(tmp_path / "own.py")) == []


def test_what_is_called_and_defined_is_what_python_says():
    """Each line of a whole statement alone, parsed anew: names that are called, and no others."""
    checked = 0
    for words, tags in stdlib_names(400)["train"]:
        try:
            tree = ast.parse(" ".join(words))
        except SyntaxError:
            continue
        called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        raised = {ast.unparse(n.exc) for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc}
        text = "".join(
            f" {word}" if tag[:2] != "I-" else word for word, tag in zip(words, tags, strict=True)
        ).split()
        of_words = [tag for tag in tags if tag[:2] != "I-"]
        own = {word for word, tag in zip(text, of_words, strict=True) if tag == "B-function"}
        dotted = {name for name in called if re.fullmatch(r"[\w.]+", name)}
        raised = {name.partition("(")[0] for name in raised}
        assert own == defined | (dotted - raised), words
        checked += 1
    assert checked > 100


def test_no_line_is_in_two_splits():
    found = stdlib_names(1000)
    lines = [line for split in found.values() for line in split]
    assert len(lines) == len(set(lines)) == 1000
    assert 150 < len(found["test"]) < 260 and 60 < len(found["validation"]) < 160
    assert found == stdlib_names(1000)


# Which lines there are depends on the Python: on some, few rows have none of the rarer tags.
@pytest.mark.parametrize("rows", [100, 150, 300, 3000])
def test_all_tags_are_known_whatever_the_training_lines_have(rows):
    data = StandardLibraryNames(rows=rows, vocab_size=300)
    data.setup("fit")
    kinds = ("class", "exception", "function", "module", "parameter", "variable")
    tags = sorted(["O", *(f"{part}-{kind}" for part in "BI" for kind in kinds)])
    assert data.label_names == tags and data.num_labels == 13
    assert {t for split in stdlib_names(rows).values() for _, own in split for t in own} <= {*tags}


def test_own_names_of_tags_are_those_that_count():
    data = StandardLibraryNames(rows=100, vocab_size=300, label_names=["O", "B-class"])
    with pytest.raises(ValueError, match=r"Tag .* is none of O, B-class\. Correct the row"):
        data.setup("fit")


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="`rows` must be a whole number of at least 100, got 10"):
        StandardLibraryNames(rows=10)


def test_a_python_without_sources_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_distill.data.text.stdlib_names.stdlib_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match="found too few .* choose data=token_files"):
        stdlib_names(100)

import os
import re
import sys
import sysconfig
import tokenize
import warnings
from collections import Counter
from pathlib import Path

import pytest
from processes import with_other_hashes

from lightning_distill.data.text import stdlib_docstrings as module
from lightning_distill.data.text.stdlib_docstrings import stdlib_docstrings


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Returns a function that makes the given files the standard library of this process."""

    def make(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
        module._docstrings_under.cache_clear()
        return tmp_path

    yield make
    module._docstrings_under.cache_clear()


def doc(text: str) -> str:
    return f'"""{text}"""\n'


def test_module_class_function_and_coroutine_docstrings_are_found_and_cleaned(library):
    library(
        {
            "alpha/part.py": '''"""The module docstring
    with a second line.
    """
class A:
    """The docstring of the class."""
    def method(self):
        """The docstring of a method.

            Indented detail.
        The last line.
        """
async def c():
    """The docstring of a coroutine."""
text = """Not a docstring, only a string."""
'''
        }
    )
    texts, names = stdlib_docstrings(1)
    assert sorted(texts) == [
        "The docstring of a coroutine.",
        "The docstring of a method.\n\n    Indented detail.\nThe last line.",
        "The docstring of the class.",
        "The module docstring\nwith a second line.",
    ]
    assert names == ["alpha"] * 4


def test_the_package_is_what_one_imports(library):
    library(
        {
            "alpha/deep/down.py": doc("Far below the package."),
            "beta.py": doc("A module that is a single file."),
        }
    )
    texts, names = stdlib_docstrings(2)
    assert dict(zip(texts, names, strict=True)) == {
        "Far below the package.": "alpha",
        "A module that is a single file.": "beta",
    }


@pytest.mark.parametrize(
    "folder",
    [
        "site-packages/other",
        "alpha/site-packages",
        "alpha/dist-packages",
        "test",
        "alpha/test",
        "alpha/tests",
        "lib2to3/tests/data",
        "idlelib/idle_test",
        "alpha/__pycache__",
        "config-3.11-x86_64-linux-gnu",
    ],
)
def test_installed_packages_tests_and_build_folders_are_left_out(library, folder):
    library(
        {
            f"{folder}/a.py": doc("This text does not belong here."),
            f"{folder}/b.py": doc("And this one does not either."),
            "alpha/a.py": doc("This text does belong here."),
        }
    )
    assert stdlib_docstrings(1)[0] == ["This text does belong here."]


def test_a_text_is_kept_once_in_its_package_and_dropped_where_two_packages_share_it(library):
    library(
        {
            "alpha/a.py": doc("Twice in the same package."),
            "alpha/b.py": doc("Twice in the same package."),
            "alpha/c.py": doc("Shared by two packages, so no answer."),
            "beta/a.py": doc("Shared by two packages, so no answer."),
            "beta/b.py": doc("Only once and only in beta."),
        }
    )
    assert stdlib_docstrings(2) == (
        ["Twice in the same package.", "Only once and only in beta."],
        ["alpha", "beta"],
    )


def test_nineteen_characters_are_too_short_and_twenty_are_enough(library):
    texts = ["x" * 19, "x" * 20, "  " + "y" * 18 + "  "]
    library({f"alpha/{i}.py": doc(text) for i, text in enumerate(texts)})
    assert stdlib_docstrings(1) == (["x" * 20], ["alpha"])


def test_the_largest_packages_are_kept_and_a_tie_goes_to_the_earlier_name(library):
    library(
        {
            f"{package}/m{i}.py": doc(f"Number {i} of the package {package}.")
            for package, count in [("zeta", 3), ("beta", 2), ("alpha", 2), ("gamma", 1)]
            for i in range(count)
        }
    )
    assert Counter(stdlib_docstrings(2)[1]) == {"zeta": 3, "alpha": 2}


def test_a_tie_between_a_file_and_a_folder_goes_to_the_earlier_name_too(library):
    library({"zeta.py": doc("A module in one file."), "alpha/a.py": doc("A module in a folder.")})
    assert stdlib_docstrings(1)[1] == ["alpha"]


def test_a_file_that_does_not_parse_is_passed_over(library):
    library(
        {
            "alpha/syntax.py": '"""A text in a broken file."""\ndef (:',
            "alpha/null.py": b'"""A text in a broken file."""\n\x00',
            "alpha/encoding.py": b'"""A text in a broken file, \xff\xfe."""\n',
            "alpha/good.py": doc("A text in a file that parses."),
        }
    )
    assert stdlib_docstrings(1)[0] == ["A text in a file that parses."]


def test_the_encoding_that_a_file_declares_is_used(library):
    library({"a.py": '# -*- coding: latin-1 -*-\n"""A café at the other end."""'.encode("latin-1")})
    assert stdlib_docstrings(1)[0] == ["A café at the other end."]


def test_old_escapes_raise_no_warning(library):
    library({"a.py": '"""Matches one digit \\d or more."""'})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stdlib_docstrings(1)[0] == ["Matches one digit \\d or more."]


def test_the_order_is_that_of_the_file_names_whatever_the_folder_says(library, monkeypatch):
    library({f"{p}/{m}.py": doc(f"The text of {p}.{m} itself.") for p in "ba" for m in "yxz"})
    plain = stdlib_docstrings(2)
    module._docstrings_under.cache_clear()
    walk = os.walk

    def backwards(root):
        for folder, subfolders, files in walk(root):
            subfolders.sort(reverse=True)
            yield folder, subfolders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert plain == stdlib_docstrings(2)
    assert plain[0] == [f"The text of {p}.{m} itself." for p in "ab" for m in "xyz"]


@pytest.mark.slow
def test_changing_the_answer_does_not_change_the_next_one():
    texts, names = stdlib_docstrings(2)
    wanted = list(texts), list(names)
    texts.clear()
    names.clear()
    assert stdlib_docstrings(2) == wanted


def test_no_sources_is_an_error_that_says_what_to_do(library):
    root = library({"python311.zip": b"PK"})
    message = f"Expected the standard library's sources .* in {re.escape(str(root))}, found none"
    with pytest.raises(RuntimeError, match=message + r".*data=text_files"):
        stdlib_docstrings()


@pytest.mark.parametrize("packages", [0, -1])
def test_fewer_than_one_package_is_refused(packages):
    with pytest.raises(ValueError, match=f"at least 1, got {packages}"):
        stdlib_docstrings(packages)


def test_more_packages_than_there_are_is_refused(library):
    library({"alpha/a.py": doc("The only text of this library.")})
    with pytest.raises(ValueError, match="at most 1, got 2"):
        stdlib_docstrings(2)


@pytest.mark.slow
def test_this_python_gives_sixteen_packages_with_enough_texts_each():
    texts, names = stdlib_docstrings()
    counts = Counter(names)
    assert len(texts) == len(names) == len(set(texts)) > 2000
    assert len(counts) == 16
    # A tenth is held out for validation, stratified: every class has to be in it.
    assert min(counts.values()) >= 30
    assert {"asyncio", "email", "unittest"} <= set(counts)
    assert all(len(text) >= 20 and text == text.strip() for text in texts)


def test_each_text_stands_in_a_file_of_its_package():
    root = Path(sysconfig.get_paths()["stdlib"])
    texts, names = stdlib_docstrings()
    squeezed = {}
    for text, name in list(zip(texts, names, strict=True))[::97]:
        if name not in squeezed:
            files = [root / f"{name}.py", *sorted((root / name).rglob("*.py"))]
            parts = []
            for file in filter(Path.is_file, files):
                with tokenize.open(file) as stream:
                    parts.append(stream.read())
            squeezed[name] = "".join("".join(parts).replace("\\", "").split())
        # Letters only: a source writes an escape, a docstring holds what it stands for.
        assert re.sub(r"\W", "", text)[:60] in re.sub(r"\W", "", squeezed[name])


@pytest.mark.slow
def test_nothing_of_the_library_is_imported_and_two_processes_agree():
    answer, imported = with_other_hashes(_read)
    assert not imported & {"turtle", "antigravity", "idlelib", "this"}
    assert answer == stdlib_docstrings()


def _read():
    return stdlib_docstrings(), set(sys.modules)

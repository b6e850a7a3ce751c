"""The library's own sources as documents, and the same split everywhere."""

import sysconfig
from pathlib import Path

import pytest

from lightning_distill.data import StandardLibrary


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


def paths(**options):
    return StandardLibrary(**options)._paths()


def test_each_module_is_in_one_split_and_the_shares_are_about_right():
    root = Path(sysconfig.get_paths()["stdlib"])
    splits = paths()
    everything = [path for found in splits.values() for path in found]
    assert len(set(everything)) == len(everything) > 400
    assert {str(root / "argparse.py"), str(root / "email" / "message.py")} <= set(everything)
    assert not [p for p in everything if "site-packages" in p or "/test/" in p]
    assert 0.05 < len(splits["test"]) / len(everything) < 0.16
    assert 0.02 < len(splits["validation"]) / len(everything) < 0.09


def test_a_module_is_in_the_same_split_whatever_else_there_is(tmp_path, monkeypatch):
    root = Path(sysconfig.get_paths()["stdlib"])
    whole = {p: split for split, found in paths().items() for p in found}
    some = [p for p in sorted(root.glob("*.py")) if p.stem.isidentifier() and p.stat().st_size]
    for path in some:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "of_one_machine.py").write_text("x = 1")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    other = {p: split for split, found in paths().items() for p in found}
    assert len(other) == len(some) + 1
    assert all(other[str(tmp_path / p.name)] == whole[str(p)] for p in some)


def test_so_many_megabytes_are_read_and_they_are_the_same_ones():
    small, large = paths(megabytes=2), paths(megabytes=4)
    sizes = [sum(Path(p).stat().st_size for f in s.values() for p in f) for s in (small, large)]
    assert 2e6 <= sizes[0] < 3e6 and 4e6 <= sizes[1] < 5e6
    assert all(set(small[split]) <= set(large[split]) for split in small)


def test_documents_are_the_sources_as_they_are(tmp_path):
    data = StandardLibrary(megabytes=0.6, vocab_size=300, max_length=64)
    data.setup()
    found = data.load()
    for split, files in data._paths().items():
        text = Path(files[0]).read_text()
        assert text in list(found[split]["text"])
        assert data.counts()[f"{split} documents"] == len(found[split])


@pytest.mark.parametrize("megabytes", [0, -1, True])
def test_megabytes_that_cannot_be(megabytes):
    with pytest.raises(ValueError, match="`megabytes` must be a number above 0, got"):
        StandardLibrary(megabytes=megabytes)


def test_a_library_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(
        RuntimeError, match="found too few .*choose texts of your own with data=text"
    ):
        StandardLibrary().setup()

"""Files of the user's folder: found behind all libraries."""

import os
import subprocess
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import pytest

from lightning_distill import main as command

NAMES = (
    *("torch", "numpy", "datasets", "transformers", "torchao", "statistics", "tokenizers"),
    *("profile", "lightning", "safetensors", "scipy"),
)


def test_the_users_folder_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    libraries = ["/a", "/b"]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *libraries, str(tmp_path)])
    command._find_own_modules()
    assert sys.path == [*libraries, str(tmp_path)]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_takes_the_place_of_a_library(tmp_path, monkeypatch, name):
    # What is not installed is the user's to name.
    installed = find_spec(name) is not None
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.py").touch()
    Path("only_mine.py").touch()
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    assert PathFinder.find_spec(name).origin == str(tmp_path / f"{name}.py")
    command._find_own_modules()
    found = PathFinder.find_spec(name)
    assert (str(tmp_path) in str(found.origin)) is not installed
    assert PathFinder.find_spec("only_mine").origin == str(tmp_path / "only_mine.py")


def test_nor_where_python_is_told_to_run_the_module(tmp_path):
    for name in ("hydra", "omegaconf", "yaml", "logging", "antlr4"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('instead of {name}')\n")
    program = [sys.executable, "-m", "lightning_distill.main", "--cfg", "job"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "seed: 0" in done.stdout, done.stderr

import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# For the processes that tests start, too: their threads would wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest
import torch
from hypothesis import settings
from tiny import bert, text_batches
from torch import nn

torch.set_num_threads(1)

# The same examples each time where nobody looks on; at a desk, new ones.
settings.register_profile("same", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")


@pytest.fixture(autouse=True)
def same_path(monkeypatch):
    """The command puts the folder where it is typed in front of all; another test has another."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def unchecked_types(monkeypatch):
    """Without the types that tests check at every call: a user sees our own words."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def teacher() -> nn.Module:
    return bert(layers=3, width=16, seed=1)


@pytest.fixture
def student() -> nn.Module:
    return bert(layers=1, width=8, seed=2)


@pytest.fixture
def batches() -> list[dict]:
    return text_batches()


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The package as pip installs it, from a wheel that is built of a copy of this folder."""
    root = Path(__file__).parent.parent
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("lightning_distill", "conf"):
        shutil.copytree(root / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*pip, str(target), str(wheel)], check=True, capture_output=True)
    return target

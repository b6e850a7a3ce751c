"""What goes out with a release says the same everywhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from lightning_distill import __version__

ROOT = Path(__file__).parent.parent


def test_one_version():
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert citation.version == __version__ and citation.license == "Apache-2.0"
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^## \[Unreleased\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", ["bug.yml", "wish.yml"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text())
    assert {"name", "description", "body"} <= {*form}
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) and all("label" in p["attributes"] for p in form["body"])


# What an extra installs, by the name that it is imported by; where other libraries import it too,
# nothing can be hidden.
OF_EXTRAS = ["optuna", "onnx", "onnxruntime", "onnxscript", "timm", "peft", "mkdocs"]


def test_every_job_loads_without_any_extra():
    """The first command of the README installs none."""
    hidden = "".join(f"sys.modules[{name!r}] = None; " for name in OF_EXTRAS)
    code = f"import sys; {hidden}import lightning_distill.jobs as jobs; print(jobs.__all__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "compare" in done.stdout and "search" in done.stdout

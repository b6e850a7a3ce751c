"""What goes out with a release says the same everywhere."""

import re
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

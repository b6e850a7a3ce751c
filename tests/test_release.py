"""What goes out with a release says the same everywhere."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.version import Version

from lightning_distill import __version__

ROOT = Path(__file__).parent.parent


def test_one_version():
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    assert citation.version == __version__ and citation.license == "Apache-2.0"
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert re.search(r"^## \[Unreleased\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name: Version(version) for name, version in pairs}


def test_the_oldest_versions_tested_are_those_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    oldest, newest = pinned("constraints-oldest.txt"), pinned("constraints.txt")
    for line in [*project["dependencies"], *extras["test"]]:
        wanted = Requirement(line)
        (least,) = [s.version for s in wanted.specifier if s.operator == ">="]
        found = oldest[wanted.name]
        # "8" is the first of 8.0, for a release may lack 8.0.0.
        assert found.release[: least.count(".") + 1] == Version(least).release, line
        assert wanted.specifier.contains(found), line
        if wanted.name in newest:
            assert wanted.specifier.contains(newest[wanted.name]), line
            assert found <= newest[wanted.name], line


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


in_a_repository = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="a copy of the repository without its history"
)


def tracked() -> dict[str, bytes]:
    """What the repository holds, by path. The link to conf/ is for work in the folder itself."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]
    return {name: (ROOT / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What the source distribution holds, and what the wheel holds that is built from it alone."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    for name, content in tracked().items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)

    def build(kind: str, where: Path) -> Path:
        code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(folder)!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=where, check=True, capture_output=True)
        return next(folder.glob("*.tar.gz" if kind == "sdist" else "*.whl"))

    with tarfile.open(build("sdist", source)) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    shutil.rmtree(source)
    files = {str(p.relative_to(unpacked)): p for p in unpacked.rglob("*") if p.is_file()}
    sources = {name: path.read_bytes() for name, path in files.items()}
    with zipfile.ZipFile(build("wheel", unpacked)) as wheel:
        return sources, {name: wheel.read(name) for name in wheel.namelist()}


@pytest.mark.slow
@in_a_repository
def test_the_source_distribution_holds_the_repository(distributions):
    sources, _ = distributions
    made = {n for n in sources if n in ("PKG-INFO", "setup.cfg") or ".egg-info/" in n}
    assert {n: c for n, c in sources.items() if n not in made} == tracked()


@pytest.mark.slow
@in_a_repository
def test_the_wheel_holds_the_package_and_its_configuration(distributions):
    _, wheel = distributions
    expected = {
        name.replace("conf/", "lightning_distill/conf/", 1) if name.startswith("conf/") else name: c
        for name, c in tracked().items()
        if name.startswith(("lightning_distill/", "conf/"))
    }
    about = f"lightning_distill-{__version__}.dist-info/"
    assert {n: c for n, c in wheel.items() if not n.startswith(about)} == expected
    metadata = message_from_string(wheel[f"{about}METADATA"].decode())
    assert metadata["Version"] == __version__ and f"{about}licenses/LICENSE" in wheel
    assert metadata.get_payload() == (ROOT / "README.md").read_text()

"""The house keeps its shape: imports go one way, and nothing exists in one place only."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lightning_distill import criteria
from lightning_distill.moved import NEW_PATHS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lightning_distill"
# What each room may import of the others, from the bottom up; imports go one way.
ROOMS: dict[str, set[str]] = {"criteria": set(), "sealed": set(), "schedules": set()}
ROOMS["extras"] = set()
ROOMS["quantization_schemes"] = {"extras"}
ROOMS["models"] = {"sealed", "quantization_schemes", "log_lines"}
ROOMS["temperatures"] = ROOMS["balance"] = ROOMS["metrics"] = {"models"}
ROOMS["cache"] = {"models", "sealed"}
ROOMS["weights"] = {"temperatures"}
ROOMS["objective"] = {"models", "criteria", "schedules", "extras"}
ROOMS["tasks"] = {"models", "objective", "criteria", "schedules"}
# Metrics ask the task which rows or tokens count, and in which type they get labels.
ROOMS["metrics"] = {"models", "tasks"}
ROOMS["callbacks"] = {"models", "objective", "tasks", "sealed"}
ROOMS["students"] = {"models", "objective", "tasks", "quantization_schemes", "extras"}
ROOMS["sparsity"] = {"models"}
ROOMS["data"] = {*ROOMS["callbacks"], "find_files", "column_names", "extras"}
ROOMS["teachers"] = {"models", "cache", "objective"}
ROOMS["training"] = {"metrics", "callbacks", "students", "cache", "teachers"} | ROOMS["tasks"]
ROOMS["training"] |= {"tasks", "sealed", "quantization_schemes", "log_lines"}
ROOMS["overrides"] = ROOMS["find_files"] = ROOMS["column_names"] = set()
ROOMS["hints"] = {"overrides"}
ROOMS["log_lines"] = set()
ROOMS["newest_run"] = ROOMS["read_config"] = ROOMS["allowed_names"] = set()
ROOMS["error_message"] = {"hints"}
ROOMS["experiment_choices"] = set()
ROOMS["data_of_files"] = {"column_names", "experiment_choices", "find_files", "overrides"}
ROOMS["data_of_hub"] = {"data_of_files", "overrides"}
ROOMS["models_of_job"] = set()
ROOMS["check_values"] = {"experiment_choices", "models_of_job", "overrides"}
ROOMS["teacher_of_student"] = {"experiment_choices", "models_of_job", "overrides"}
# Of the criteria only when they are tried.
ROOMS["check_terms"] = {"check_values", "criteria", "allowed_names"}
ROOMS["before_loading"] = {"check_terms", "check_values", "find_files", "hints", "overrides"}
ROOMS["before_loading"] |= {"newest_run", "read_config", "allowed_names", "data_of_files"}
ROOMS["before_loading"] |= {"export_options", "quantization_schemes", "search_plan", "extras"}
ROOMS["search_parameters"] = {"check_values"}
ROOMS["search_plan"] = {"check_values", "extras", "search_parameters"}
ROOMS["search"] = {"search_plan", "callbacks", "sparsity"}
ROOMS["export_options"] = {"quantization_schemes", "extras"}
ROOMS["export"] = {"export_options", "models", "quantization_schemes"}
ROOMS["report"] = {"training", "teachers", "models", "callbacks", "data", "objective", "sealed"}
ROOMS["report"] |= {"metrics"}
ROOMS["checks"] = {"cache", "callbacks", "data", "metrics", "models", "objective", "tasks"}
ROOMS["checks"] |= {"training"}
ROOMS["run"] = {*ROOMS}
ROOMS["jobs"] = {*ROOMS}
ROOMS["main"] = {"jobs", "run", "before_loading", "error_message", "overrides", "data_of_files"}
ROOMS["main"] |= {"data_of_hub", "teacher_of_student"}
ROOMS["moved"] = set()
ROOMS["__init__"] = {"moved", "metrics", "objective", "training"}
COMMAND = {
    "main",
    "error_message",
    "hints",
    "overrides",
    "check_values",
    "before_loading",
    "check_terms",
    "experiment_choices",
    "data_of_files",
    "data_of_hub",
    "read_config",
    "teacher_of_student",
    "search_parameters",
    "search_plan",
}
CORE = sorted({*ROOMS} - {"run", "jobs"} - COMMAND)


def classes(path: Path) -> list[str]:
    """The public classes that a file defines."""
    tree = ast.parse(path.read_text()).body
    return [n.name for n in tree if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]


# From the files, and not from what is exported: what was forgotten there must not escape.
FILES = [p for p in sorted((PACKAGE / "criteria").glob("*.py")) if not p.stem.startswith("_")]
# What all of them derive from is none itself.
FILES = [p for p in FILES if p.stem != "criterion"]
CRITERIA = [name for path in FILES for name in classes(path)]


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    return imported(path.read_text(), package)


def imported(text: str, package: list[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = [*start, *([node.module] if node.module else [])]
            found.add(".".join(module))
            # What is imported may be a module itself.
            found.update(".".join([*module, alias.name]) for alias in node.names)
    return found


def files(*names: str) -> list[Path]:
    found = []
    for name in names:
        path = PACKAGE / name
        found += sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return found


ALL = sorted(p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] != "conf")


def reaches(path: Path, *targets: str) -> set[str]:
    return {
        name
        for name in imports(path)
        for target in targets
        if name == target or name.startswith(f"{target}.")
    }


@pytest.mark.parametrize(
    "text",
    ["from . import criteria", "from .criteria import JSD", "import lightning_distill.criteria"],
)
def test_every_form_of_import_is_seen(text):
    found = imported(text, ["lightning_distill"])
    assert any(name.startswith("lightning_distill.criteria") for name in found)


@pytest.mark.parametrize("path", files("criteria"), ids=lambda p: p.stem)
def test_criteria_import_torch_only(path):
    own = {"lightning_distill.criteria", "torch", "jaxtyping"}
    standard = set(sys.stdlib_module_names)
    for name in imports(path):
        top = name.split(".")[0]
        assert top in standard or any(name == o or name.startswith(f"{o}.") for o in own), name


@pytest.mark.parametrize("path", ALL, ids=lambda p: "-".join(p.relative_to(PACKAGE).parts))
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    known = {n.split(".")[1] for n in reaches(path, "lightning_distill") if "." in n}
    assert known - {own} <= ROOMS[own]
    assert own not in CORE or not reaches(path, "hydra", "omegaconf")


# Documented defaults, and the two terms of the system before.
DEFAULTS = {"objective/intermediate_layers.py", "training/distill.py"}


@pytest.mark.parametrize("path", files("objective", "training"), ids=lambda p: p.stem)
def test_objective_and_training_import_no_criterion_but_documented_defaults(path):
    known = str(path.relative_to(PACKAGE)) in DEFAULTS
    assert known or not reaches(path, *(f"lightning_distill.criteria.{n}" for n in CRITERIA))


def test_there_are_no_rooms_without_a_name():
    forbidden = {"utils", "helpers", "base", "common", "registry", "misc"}
    assert not [p for p in PACKAGE.rglob("*") if p.stem in forbidden]


@pytest.mark.parametrize("typed", [[], ["--help"], ["--cfg", "job"]], ids=["import", "help", "cfg"])
def test_what_shall_be_quick_imports_no_torch(typed):
    code = f"""
import atexit, sys, lightning_distill.main as command
seen = lambda: print({{"torch", "lightning", "transformers"}} & set(sys.modules), file=sys.stderr)
atexit.register(seen)
sys.argv = ["lightning-distill", *{typed}]
if {bool(typed)}:
    command.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert bool(done.stdout) == bool(typed)


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_each_file_of_criteria_is_named_after_its_one_criterion(path):
    assert [snake(name) for name in classes(path)] == [path.stem]


@pytest.mark.parametrize("name", CRITERIA)
def test_each_criterion_is_in_its_file_its_config_its_test_and_its_page(name):
    stem = snake(name)
    assert name in criteria.__all__ and hasattr(criteria, name)
    assert (PACKAGE / "criteria" / f"{stem}.py").is_file()
    assert f"lightning_distill.criteria.{name}" in (ROOT / f"conf/criteria/{stem}.yaml").read_text()
    assert (ROOT / f"tests/criteria/test_{stem}.py").is_file()
    lines = (ROOT / "docs/criteria.md").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith(f"| `{name}` |"))
    _, paper, formula, default, file = (cell.strip() for cell in row.strip("|").split("|"))
    assert formula and file == f"`criteria/{stem}.py`"
    assert re.search(r"\d{4}$", paper) or name in ("HardLabel", "ClassSubset", "SampleWeighted")
    settings = inspect.signature(getattr(criteria, name).__init__).parameters
    assert default or set(settings) <= {"self", "args", "kwargs", "gather", "variant", "resize"}


@pytest.mark.parametrize("name", CRITERIA)
def test_each_criterion_takes_student_first_and_teacher_second(name):
    arguments = list(inspect.signature(getattr(criteria, name).forward).parameters)[1:]
    assert arguments[0] == "student"
    assert arguments[1] in ("teacher", "labels")
    assert issubclass(getattr(criteria, name), criteria.Criterion)


def test_criteria_wait_for_no_other_process_but_to_gather():
    for path in files("criteria"):
        assert path.stem == "_gather" or not reaches(path, "torch.distributed")
        assert path.stem == "_gather" or "torch.distributed." not in path.read_text()


def test_graphs_are_gone_through_twice_in_one_place():
    """Where compiled models allow it; elsewhere `retain_graph` fails for them."""
    found = [p.name for p in PACKAGE.rglob("*.py") if "retain_graph=True" in p.read_text()]
    assert found == ["compilation.py"]


def test_test_files_have_names_of_their_own():
    """pytest imports them by their bare names: two of one name cannot be collected together."""
    names = Counter(p.name for p in (ROOT / "tests").rglob("*.py"))
    assert [name for name, times in names.items() if times > 1 and name != "conftest.py"] == []


def test_each_package_is_installed():
    listed = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S)[1]
    for folder in (p.parent for p in PACKAGE.rglob("__init__.py")):
        name = ".".join(folder.relative_to(ROOT).parts)
        assert f'"{name}"' in listed


@pytest.mark.parametrize("old", NEW_PATHS)
def test_an_old_path_says_the_new_one(old):
    with pytest.raises(
        ImportError, match=rf"lightning_distill\.{old} has moved: it is now"
    ) as info:
        importlib.import_module(f"lightning_distill.{old}")
    for new in re.findall(r"lightning_distill\.[\w.]+\w", str(info.value))[1:]:
        assert importlib.util.find_spec(new) is not None


def test_one_place_makes_what_a_configuration_names():
    """Where it is looked at; no other file asks Hydra for a class, or to make one."""
    asking = [p for p in ALL if reaches(p, "hydra.utils", "hydra._internal")]
    assert [str(p.relative_to(PACKAGE)) for p in asking] == ["run/targets.py"]


def test_no_pickle_is_loaded():
    """Reading one runs whatever it says; torch reads weights alone where it is told to."""
    for path in ALL:
        assert not reaches(path, "pickle", "dill", "joblib", "shelve", "marshal"), path
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name, said = (
                ast.unparse(node.func),
                {k.arg: ast.unparse(k.value) for k in node.keywords},
            )
            assert said.get("allow_pickle", "False") == "False", path
            if name == "torch.load":
                assert said.get("weights_only") == "True", path
            elif not name.endswith("save_checkpoint"):
                assert said.get("weights_only", "True") == "True", path


def test_whatever_loads_of_transformers_is_told_whether_code_may_be_run():
    """Left unsaid, transformers would ask at a terminal, and run the code on y."""
    for path in ALL:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name, said = ast.unparse(node.func), {k.arg for k in node.keywords}
            if name.endswith(".from_pretrained") and "PeftConfig" not in name:
                # `None` is what a caller passes on.
                assert {"trust_remote_code", None} & said, (path, name)


def test_no_module_beside_tests_hides_a_folder_of_tests():
    # pytest puts each folder with tests in front of what processes import.
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    beside = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert not [p for folder in beside for p in folder.glob("*.py") if p.stem in folders]

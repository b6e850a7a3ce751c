"""What the pages of docs/ show works as it stands there."""

import ast
import re
import shlex
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import bert, loader, text_batches

from lightning_distill.main import main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lightning_distill"
PAGES = {str(p.relative_to(ROOT)): p.read_text() for p in sorted((ROOT / "docs").rglob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text()


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The lines that type `lightning-distill`, in fences and in indented blocks."""
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    .*$", rest, re.MULTILINE)
    blocks = [*fences(text, "sh"), "\n".join(line.strip() for line in indented)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if "lightning-distill " in line and "pip install" not in line]


COMMANDS = [(page, line) for page, text in PAGES.items() for line in commands(text)]


def words_of(line: str) -> list[str]:
    """What is typed behind `lightning-distill`; `...` stands for what was shown before."""
    words = shlex.split(line, comments=True)
    start = next(i for i, word in enumerate(words) if "lightning-distill" in word)
    typed = words[start + 1 :]
    return [word for word in typed if "..." not in word and not word.startswith("$")]


# The names that stand for folders of models in the pages.
MODELS = ("TEACHER", "MODEL", "SMALL", "LARGER", "DIR", "RERANKER", "WHISPER", "RUN/student")
MODELS += ("runs/finetune/TIME/student", "bert-base-uncased", "bert-base-cased")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A folder with whatever the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    rows = "".join(f"a fine film {i},good\na sad film {i},bad\n" for i in range(12))
    for name in ("train", "dev", "test"):
        for suffix, cell in ((".csv", ","), (".tsv", "\t")):
            (folder / f"{name}{suffix}").write_text(f"text,label\n{rows}".replace(",", cell))
        (folder / f"{name}.conll").write_text("a O\nfilm B-thing\n\n" * 8)
        for suffix in (".json", ".jsonl"):
            (folder / f"{name}{suffix}").write_text("{}\n")
    for file in ("plain.csv", "corpus.txt", "corpus/a.txt", "texts/a.txt", "chats.jsonl"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(rows)
    for file in ("FOLDER/good/a.png", "FOLDER/bad/b.png", "texts.jsonl", "weights.safetensors"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    for name in MODELS:
        bert(2, 8, num_labels=2).save_pretrained(folder / name)
    for job in ("distill", "finetune"):
        run = folder / "runs" / job / "TIME"
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(config_of("trainer.max_epochs=1"))
    for path, code in (file for text in PAGES.values() for file in files_of(text)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code)
    return folder


def config_of(*words: str) -> str:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("main", overrides=["output_dir=out", *words])
    return OmegaConf.to_yaml(cfg)


@pytest.fixture
def folder(filled, monkeypatch) -> Path:
    monkeypatch.chdir(filled)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return filled


def files_of(text: str) -> list[tuple[str, str]]:
    """Blocks of Python that begin with the path of a file."""
    blocks = fences(text, "python")
    return [(m[1], code) for code in blocks if (m := re.match(r"# (mine/\S+\.py)\n", code))]


def test_most_pages_have_commands():
    assert len(COMMANDS) > 90
    assert len({page for page, _ in COMMANDS}) > 20


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS}))
def test_every_command_of_a_page_comes_as_far_as_its_job(page, folder, monkeypatch, capsys):
    """What is wrong with names, values, files and folders is told before the job begins."""
    begun: list = []
    monkeypatch.setattr("lightning_distill.jobs.run", begun.append)
    # Whichever extras are installed here.
    monkeypatch.setattr("lightning_distill.before_loading.check_extra", lambda *a, **k: None)
    for line in (line for of, line in COMMANDS if of == page):
        words = words_of(line)
        if {"--help", "--version", "--cfg"} & {*words}:
            continue
        begun.clear()
        monkeypatch.setattr(sys, "argv", ["lightning-distill", *words])
        try:
            main()
        except SystemExit:
            pytest.fail(f"{line}\n{capsys.readouterr()}")
        assert begun, line


def examples(page: str) -> list[str]:
    return fences(PAGES[f"docs/{page}.md"], "python")


@pytest.mark.parametrize("page", ["your_data", "your_model"])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in examples(page):
        exec(code, names)
    # What the page trains has learnt, and is the student's best.
    assert not names["student"].training


def test_the_program_of_those_who_come_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batches = text_batches(count=2)
    for batch in batches:
        batch["labels"] %= 2
    names = {name: loader(batches) for name in ("train_loader", "val_loader")}
    names |= {"student": bert(1, 8, num_labels=2), "teacher": bert(2, 8, seed=1, num_labels=2)}
    (code,) = examples("coming_from")
    exec(code, names)
    assert (tmp_path / "student" / "model.safetensors").is_file()
    weights = names["criterion"].state_dict(), names["criterion"].loss_weight_ratio
    assert weights == ({}, [0.3, 0.7])


def test_the_student_of_4_bits_in_python(tmp_path, monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.chdir(tmp_path)
    names = {name: loader(text_batches(count=1)) for name in ("train_loader", "val_loader")}
    names |= {"student": bert(1, 32), "teacher": bert(2, 32, seed=1)}
    (code,) = (block for block in examples("quantised_students") if "in_integers" in block)
    exec(code, names)
    assert "int4" in str(names["small"]).lower()


@pytest.mark.slow
def test_a_class_of_ones_own_is_trained_as_the_page_says(folder, monkeypatch):
    (line,) = (c for c in commands(PAGES["docs/your_model.md"]) if "mine.tiny_reader" in c)
    small = "data.train=train.tsv data.validation=dev.tsv baseline=false trainer.max_epochs=1 "
    small += "teacher.max_epochs=1 teacher.model.num_hidden_layers=1 teacher.model.hidden_size=16 "
    small += "trainer.accelerator=cpu hydra.run.dir=run"
    # Another test of this process may have had files in a folder of this name.
    for name in [n for n in sys.modules if n.partition(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
    monkeypatch.setattr(sys, "argv", ["lightning-distill", *words_of(line), *small.split()])
    main()
    assert (folder / "run" / "student" / "model.safetensors").is_file()


def test_every_extra_is_on_the_page_of_the_installation():
    shown = re.findall(r"^\| `(\w+)` \|", PAGES["docs/install.md"], re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert shown == sorted(project["optional-dependencies"])


def test_the_versions_on_the_page_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first = " ".join(PAGES["docs/install.md"].split("\n\n")[1].split())
    assert project["requires-python"] == ">=3.11" and "Python 3.11 or newer" in first
    wanted = {"torch>=2.8": "torch 2.8 or", "lightning>=2.6,<3": "Lightning 2.6 or"}
    for requirement, words in (*wanted.items(), ("transformers>=5.23,<6", "transformers 5.23 or")):
        assert requirement in project["dependencies"] and words in first


VARIES = "…"


@cache
def texts_of_the_package() -> list[str]:
    """Every text in the source; what is filled in is `…`."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else VARIES for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def is_in_the_package(message: str) -> bool:
    pattern = r"[^\n]*".join(re.escape(part) for part in message.split(VARIES))
    return any(re.search(pattern, text) for text in texts_of_the_package())


MESSAGES = re.findall(r"^### `(.*)`$", PAGES["docs/troubleshooting.md"], re.MULTILINE)


def test_there_are_enough_messages():
    assert len(MESSAGES) == len(set(MESSAGES)) >= 20
    heads = re.findall(r"^### ", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    assert len(heads) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: re.sub(r"\W+", "-", m)[:50])
def test_each_message_is_one_of_the_package(message):
    # Enough words that no other message has them.
    assert len(message.replace(VARIES, "").split()) >= 4
    assert is_in_the_package(message)


def test_a_message_that_is_nowhere_is_seen():
    assert not is_in_the_package("Term … has a negative weight but gives the student no gradient")

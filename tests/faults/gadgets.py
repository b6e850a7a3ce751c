"""A run from elsewhere names what would write a file: it is never called, nothing is written."""

import pickle
import shutil
from functools import partial
from pathlib import Path

import torch
import yaml
from faults.case import Case
from faults.compared import uncut
from faults.job import command, save_teacher, TINY

TITLE = "Hostile pickles, targets of a configuration, a model with code"
SCRIPT = "open('{marker}', 'w').close()"
TARGETS = [
    {"_target_": "builtins.open", "file": "{marker}", "mode": "w"},
    {"_target_": "io.open", "file": "{marker}", "mode": "w"},
    {"_target_": "pathlib.Path.touch", "_args_": ["{path}"]},
    {"_target_": "shutil.copyfile", "src": "{source}", "dst": "{marker}"},
    {"_target_": "shutil.copy", "src": "{source}", "dst": "{marker}"},
    {"_target_": "shutil.copytree", "src": "{folder}", "dst": "{marker}"},
    {"_target_": "os.mkdir", "path": "{marker}"},
    {"_target_": "os.makedirs", "name": "{marker}"},
    {"_target_": "os.symlink", "src": "{source}", "dst": "{marker}"},
    {"_target_": "os.link", "src": "{source}", "dst": "{marker}"},
    {"_target_": "urllib.request.urlretrieve", "url": "file://{source}", "filename": "{marker}"},
    {"_target_": "torch.hub.download_url_to_file", "url": "file://{source}", "dst": "{marker}"},
    {"_target_": "torch.save", "obj": 1, "f": "{marker}"},
    {"_target_": "torch.load", "f": "{pickle}", "weights_only": False},
    {
        "_target_": "pickle.load",
        "file": {"_target_": "builtins.open", "file": "{pickle}", "mode": "rb"},
    },
    {"_target_": "pandas.read_pickle", "filepath_or_buffer": "{pickle}"},
    {"_target_": "numpy.load", "file": "{pickle}", "allow_pickle": True},
    {"_target_": "numpy.save", "file": "{marker}", "arr": [1]},
    {"_target_": "runpy.run_path", "path_name": "{script}"},
    {"_target_": "importlib.import_module", "name": "marked"},
    {"_target_": "marked.Anything"},
    {"_target_": "subprocess.run", "args": ["touch", "{marker}"]},
    {"_target_": "subprocess.Popen", "args": ["touch", "{marker}"]},
    {"_target_": "os.system", "command": "touch {marker}"},
    {"_target_": "builtins.exec", "_args_": ["{script_text}"]},
    {"_target_": "builtins.eval", "_args_": ["{script_text}"]},
    {"_target_": "timeit.timeit", "stmt": "{script_text}", "number": 1},
    {"_target_": "torch.utils.cpp_extension.load", "name": "x", "sources": ["{script}"]},
    {"_target_": "lightning_distill.sealed.write_whole", "path": "{path}", "write": "x"},
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": "{marker}"}},
]
PLACES = ["student", "teacher", "optimizer", "data", "job", "criteria.mine", "callbacks.mine"]
PLACES += ["metrics.accuracy", "scheduler", "logger.csv"]


def cases() -> list[Case]:
    found = []
    for n in range(10):
        found.append(Case(f"pickle: {PICKLES[n % 5]} {n}", partial(_pickle, n=n), n == 0))
    for n, target in enumerate(TARGETS):
        place = PLACES[n % len(PLACES)]
        attempt = partial(_target, target=target, place=place)
        found.append(Case(f"target: {target['_target_']} as {place}", attempt, n == 3))
    found.append(Case("a model with code of its own", _remote))
    return found


PICKLES = ["last.ckpt", "best.ckpt", "pytorch_model.bin", "model.safetensors", "student"]


class Marks:
    """Whoever loads it makes a file."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def _pickle(folder: Path, n: int) -> None:
    marker, run = folder / "marker", folder / "run"
    shutil.copytree(uncut(), run)
    hostile = Marks(str(marker))
    write = pickle.dump if n >= 5 else _as_torch
    kind = PICKLES[n % 5]
    if kind in ("last.ckpt", "best.ckpt"):
        for name in ("result.json", "result.json.sha256", "finished"):
            if kind == "last.ckpt":
                (run / name).unlink(missing_ok=True)
        found = list((run / "checkpoints").glob("*.ckpt"))
        typed = [f"resume={run}"]
    else:
        found = [run / "student" / {"student": "training_args.bin"}.get(kind, kind)]
        if kind == "pytorch_model.bin":
            (run / "student" / "model.safetensors").unlink()
        (run / "student" / "SHA256SUMS").unlink(missing_ok=True)
        typed = [*TINY, "teacher=pretrained", f"teacher.path={run}/student"]
        typed.append(f"hydra.run.dir={folder}/other")
    for path in found:
        with path.open("wb") as file:
            write(hostile, file)
        # As whoever made the run would have done.
        path.with_name(path.name + ".sha256").unlink(missing_ok=True)
    _not_marked(command(typed), marker, kind == "student")


def _as_torch(what, file) -> None:
    torch.save({"state_dict": what}, file)


def _target(folder: Path, target: dict, place: str) -> None:
    marker, run = folder / "marker", folder / "run"
    shutil.copytree(uncut(), run)
    for name in ("result.json", "result.json.sha256", "finished", "config.yaml.sha256"):
        (run / name).unlink(missing_ok=True)
    (folder / "source").write_text("x")
    (folder / "small").mkdir()
    script = SCRIPT.format(marker=marker)
    (folder / "script.py").write_text(script)
    # A module that comes with the run.
    (run / "marked.py").write_text(script)
    with (folder / "hostile").open("wb") as file:
        pickle.dump(Marks(str(marker)), file)
    path = {"_target_": "pathlib.Path", "_args_": [str(marker)]}
    values = {"marker": marker, "source": folder / "source", "folder": folder / "small"}
    values |= {"pickle": folder / "hostile", "script": folder / "script.py", "script_text": script}
    told = _filled(target, path, **values)
    saved = run / "config.yaml"
    config = yaml.safe_load(saved.read_text())
    *above, last = place.split(".")
    inner = config
    for name in above:
        inner = inner.setdefault(name, {})
    inner[last] = told
    saved.write_text(yaml.safe_dump(config))
    _not_marked(command([f"resume={run}"], folder=run), marker)


def _filled(node, path, **values):
    if isinstance(node, dict):
        return {k: _filled(v, path, **values) for k, v in node.items()}
    if isinstance(node, list):
        return [_filled(v, path, **values) for v in node]
    if node == "{path}":
        return path
    return node.format(**values) if isinstance(node, str) else node


def _remote(folder: Path) -> None:
    from faults.job import workplace
    from transformers import AutoTokenizer

    place, marker = folder / "teacher", folder / "marker"
    save_teacher(place, AutoTokenizer.from_pretrained(workplace() / "teacher"))
    config = yaml.safe_load((place / "config.json").read_text())
    config["model_type"] = "marked"
    config["auto_map"] = {"AutoConfig": "marked.Config", "AutoModel": "marked.Model",
                          "AutoModelForSequenceClassification": "marked.Model"}  # fmt: skip
    import json

    (place / "config.json").write_text(json.dumps(config))
    (place / "marked.py").write_text(SCRIPT.format(marker=marker))
    given = [*TINY, "teacher=pretrained", f"teacher.path={place}", f"hydra.run.dir={folder}/run"]
    _not_marked(command(given), marker)


def _not_marked(ended, marker: Path, may_pass: bool = False) -> None:
    assert not marker.exists(), "it was executed"
    assert ended.code is not None, "it hangs"
    assert ended.code != 0 or may_pass, "it passed without a word"
    assert "Traceback" not in ended.said, f"a traceback: {ended.err[-300:]}"
    assert ended.code == 0 or "error:" in ended.err, f"no words: {ended.err[-300:]}"

"""Whatever happens to the files: a wrong row is never given, and what to do is said."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import kept
import pytest
import torch
from kept import keep, read_all
from safetensors import safe_open

from lightning_distill.cache import AnswerStore, DamagedCacheError, row_ids, store, write_manifest
from lightning_distill.cache.answer import signature
from lightning_distill.cache.shard import whole_shard
from lightning_distill.cache.signed_json import read_json, write_json

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "kept"
    keep(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "kept"))


@pytest.fixture(scope="module")
def truth(whole):
    return read_all(whole)


def refused_or_right(folder: Path, truth: dict[str, torch.Tensor]) -> str | None:
    """The words of the refusal, or None if all was read, and was right."""
    try:
        found = read_all(folder)
    except (DamagedCacheError, FileNotFoundError, ValueError, LookupError) as error:
        return f"{type(error).__name__}: {error}"
    for name, right in truth.items():
        assert torch.equal(found[name], right), f"{name} is wrong and nobody said so"
    return None


def flip(path: Path, place: float, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(bytes(content))


def columns(path: Path) -> dict[str, tuple[int, int]]:
    """Where each column of a file begins and ends."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {n: tuple(start + o for o in c["data_offsets"]) for n, c in header.items()}


COLUMNS = [
    "id",
    "tokens",
    "logits/values",
    "logits/classes",
    "logits/rest",
    "logits/crc",
    "hidden_states[1]/values",
    "hidden_states[1]/scale",
    "hidden_states[1]/crc",
    "layer:pooler/values",
    "layer:pooler/crc",
    "scores/classes",
    "scores/counts",
    "scores/crc",
]


@pytest.mark.parametrize("bit", [0, 6])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_bit_flipped_in_a_column_is_refused(folder, truth, column, bit):
    path = folder / "shard-00001.safetensors"
    start, stop = columns(path)[column]
    flip(path, (start + (stop - start) // 2 + 0.5) / path.stat().st_size, bit)
    words = refused_or_right(folder, truth)
    # A number of tokens that is off by 2^6 of the high bytes is refused as well.
    assert words is not None and words.startswith("DamagedCacheError")
    assert "shard-00001.safetensors" in words
    assert "Give the command that made the cache again" in words
    assert AnswerStore(folder).check_files() == ["shard-00001.safetensors"]


@pytest.mark.parametrize("column", ["high", "low", "place"])
@pytest.mark.parametrize("place", [0.0, 0.37, 0.99])
def test_a_bit_flipped_in_the_index_is_refused(folder, truth, column, place):
    path = folder / "index.safetensors"
    start, stop = columns(path)[column]
    flip(path, (start + place * (stop - start)) / path.stat().st_size, 3)
    assert refused_or_right(folder, truth) is not None
    assert AnswerStore(folder).check_files() == ["index.safetensors"]


@pytest.mark.parametrize("name", ["shard-00000.safetensors", "index.safetensors"])
@pytest.mark.parametrize("at", [0, 7, 20, 100])
def test_a_bit_flipped_in_a_header_is_refused_at_opening(folder, name, at):
    flip(folder / name, (at + 0.5) / (folder / name).stat().st_size, 1)
    with pytest.raises(DamagedCacheError, match=r"The header of .* is not what was written"):
        AnswerStore(folder)


@pytest.mark.parametrize("place", [0.01, 0.2, 0.4, 0.6, 0.8, 0.97])
@pytest.mark.parametrize("bit", [0, 5])
def test_a_bit_flipped_in_the_manifest_is_refused(folder, place, bit):
    flip(folder / "manifest.json", place, bit)
    with pytest.raises(DamagedCacheError, match=r"manifest.json is damaged"):
        AnswerStore(folder)


@pytest.mark.parametrize("seed", range(24))
def test_a_bit_flipped_anywhere_is_refused_or_harmless(folder, truth, seed):
    generator = torch.Generator().manual_seed(seed)
    files = sorted(folder.iterdir())
    path = files[seed % len(files)]
    place, bit = torch.rand(2, generator=generator).tolist()
    flip(path, place, int(bit * 8))
    assert refused_or_right(folder, truth) is not None


NAMES = ["shard-00002.safetensors", "index.safetensors", "manifest.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep_", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut_is_refused_at_opening(folder, name, keep_):
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(keep_ * len(content))])
    with pytest.raises(DamagedCacheError, match=r"bytes, but|is damaged"):
        AnswerStore(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises((DamagedCacheError, FileNotFoundError), match=name):
        AnswerStore(folder)


def test_bytes_behind_the_end_are_refused(folder):
    with (folder / "shard-00000.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DamagedCacheError, match="bytes, but"):
        AnswerStore(folder)


@pytest.mark.parametrize("name", ["shard-00001.safetensors", "index.safetensors"])
def test_a_page_of_zeros_is_refused(folder, truth, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(content))
    assert refused_or_right(folder, truth) is not None


def test_files_that_changed_places_are_refused(folder, truth):
    one, other = folder / "shard-00000.safetensors", folder / "shard-00001.safetensors"
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    assert refused_or_right(folder, truth) is not None


OTHER = {"teacher": {"fingerprint": "b"}}


def test_a_shard_of_another_teacher_among_these_is_refused(folder, tmp_path, truth):
    # The same rows, of the same sizes, and whole: nothing but the teacher differs.
    keep(tmp_path / "other", seed=5, about=OTHER)
    name = "shard-00000.safetensors"
    shutil.copy(tmp_path / "other" / name, folder / name)
    words = refused_or_right(folder, truth)
    # Its header says whose it is, and is looked at when the folder is opened.
    assert words is not None and "The header of" in words and name in words


def test_the_manifest_of_another_teacher_is_refused(folder, tmp_path, truth):
    keep(tmp_path / "other", seed=5, about=OTHER)
    shutil.copy(tmp_path / "other" / "manifest.json", folder / "manifest.json")
    words = refused_or_right(folder, truth)
    assert words is not None and words.startswith("DamagedCacheError: The header of")


@pytest.mark.parametrize(
    "about", [OTHER, {"teacher": {"fingerprint": "a"}, "precision": "bf16-mixed"}]
)
def test_a_manifest_that_names_another_teacher_or_precision_is_refused_when_a_row_is_read(
    folder, truth, about
):
    # The files are whole, and as the manifest says; the rows are not those of this teacher.
    content = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", content | {"about": about})
    words = refused_or_right(folder, truth)
    assert words is not None and words.startswith("DamagedCacheError: Row ")


def test_the_manifest_of_other_encodings_is_refused_when_a_row_is_read(folder, truth):
    # The same columns, read at another temperature, would be other logits.
    content = read_json(folder / "manifest.json")
    (logits,) = (a for a in content["answers"] if a["name"] == "logits")
    logits["temperature"] = 2.0
    write_json(folder / "manifest.json", content)
    words = refused_or_right(folder, truth)
    assert words is not None and words.startswith("DamagedCacheError: Row ")


def test_shards_of_another_teacher_make_no_cache(folder, tmp_path):
    facts = AnswerStore(folder).shards
    with pytest.raises(ValueError, match="shard-00000.safetensors, .* answers of another"):
        write_manifest(folder, OTHER, kept.ANSWERS, facts)
    with pytest.raises(ValueError, match="or kept otherwise. Name another folder"):
        write_manifest(folder, {"teacher": {"fingerprint": "a"}}, kept.ANSWERS[:2], facts)


def test_a_shard_says_itself_whether_it_is_whole(folder):
    of = signature("a", kept.ANSWERS)
    shard = folder / "shard-00001.safetensors"
    assert whole_shard(shard, of) == AnswerStore(folder).shards[1]
    assert whole_shard(shard, signature("b", kept.ANSWERS)) is None
    assert whole_shard(shard, signature("a", kept.ANSWERS[1:])) is None
    # One which is whole, under the name of another: its rows are not those that belong there.
    shutil.copy(folder / "shard-00000.safetensors", shard)
    assert whole_shard(shard, of) is None
    shard.unlink()
    assert whole_shard(shard, of) is None


@pytest.mark.parametrize("part", ["length", "labels", "places", "spaces", "data", "cut", "empty"])
def test_a_shard_of_which_one_bit_differs_is_not_whole(folder, part):
    of, shard = signature("a", kept.ANSWERS), folder / "shard-00002.safetensors"
    content = bytearray(shard.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    assert content[:end].count(b" ") and b"__metadata__" in content[:end]
    at = {"labels": content.index(b'"sha256":"') + 12, "places": content.index(b'"shape"') + 9}
    at |= {"length": 0, "spaces": end - 1, "data": end + (len(content) - end) // 2}
    if part in at:
        content[at[part]] ^= 1
    shard.write_bytes({"cut": content[:-9], "empty": b""}.get(part, bytes(content)))
    assert whole_shard(shard, of) is None


def test_any_program_reads_a_shard(folder):
    """The labels are the format's own: safetensors itself gives the columns."""
    with safe_open(folder / "shard-00001.safetensors", "pt") as file:
        assert set(COLUMNS) == set(file.keys())
        assert file.metadata()["of"] == signature("a", kept.ANSWERS)
        assert torch.equal(file.get_tensor("id"), torch.from_numpy(row_ids(kept.inputs())[10:20]))


@pytest.mark.parametrize("seed", range(30))
def test_pages_of_zeros_of_ones_or_of_another_file_are_refused_or_harmless(folder, truth, seed):
    generator = torch.Generator().manual_seed(seed)
    files = [p for p in sorted(folder.iterdir()) if p.suffix == ".safetensors"]
    path, other = files[seed % len(files)], files[(seed + 1) % len(files)]
    content, alien = bytearray(path.read_bytes()), other.read_bytes()
    size = int(2 ** (3 + 6 * torch.rand(1, generator=generator).item()))
    start = int(torch.randint(0, len(content) - size, (1,), generator=generator))
    page = [bytes(size), b"\xff" * size, alien[start : start + size].ljust(size, b"\0")][seed % 3]
    same = content[start : start + size] == page
    content[start : start + size] = page
    path.write_bytes(bytes(content))
    words = refused_or_right(folder, truth)
    assert (words is None) == same


def test_a_store_that_is_open_says_what_to_do_if_a_file_goes_away(folder, monkeypatch):
    monkeypatch.setattr(store, "MAPPED", 1)
    opened = AnswerStore(folder)
    (folder / "shard-00000.safetensors").unlink()
    ids = row_ids(kept.inputs())[:1]
    with pytest.raises(DamagedCacheError, match="00000.safetensors is missing. Give the command"):
        opened.read(ids, opened.find(ids), ["logits"])
    assert opened.check_files() == ["shard-00000.safetensors"]


@contextmanager
def mounted(folder: Path, *options: str):
    """A file system of its own, where this is allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("this system has no mount, which makes the full disk of this test")
    if done.returncode:
        pytest.skip("only root may mount the file system that this test fills")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_is_said_and_room_lets_it_go_on(whole, tmp_path):
    with mounted(tmp_path / "disk", "size=16k") as disk:
        with pytest.raises(OSError, match=r"could not be written \(No space left on device\)"):
            keep(disk / "kept")
        names = {p.name for p in (disk / "kept").iterdir()}
        assert names and not any(name.endswith(".part") for name in names)
        for name in names:
            assert (disk / "kept" / name).read_bytes() == (whole / name).read_bytes()
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        keep(disk / "kept")
        assert {p.name for p in (disk / "kept").iterdir()} == {p.name for p in whole.iterdir()}


def test_a_disk_that_is_read_only_is_said(tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        keep(disk / "kept")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match=r"written \(Read-only file system\).*or the folder writ"):
            keep(disk / "kept")
        # It can still be read.
        assert read_all(disk / "kept")


@pytest.mark.parametrize("name", ["manifest.json", "index.safetensors"], ids=["manifest", "index"])
def test_the_manifest_or_index_of_other_rows_is_refused(folder, tmp_path, name, truth):
    keep(tmp_path / "other", seed=5)
    other = json.loads((tmp_path / "other" / "manifest.json").read_text())
    if name == "manifest.json":
        other["shards"] = other["shards"][:-1]
        other.pop("checksum")
        write_json(folder / name, other)
        assert refused_or_right(folder, truth) is not None
    else:
        # The same rows at the same places: the index is the same, and fits.
        shutil.copy(tmp_path / "other" / name, folder / name)
        assert refused_or_right(folder, truth) is None


@pytest.mark.parametrize(
    ("key", "value"), [("version", 1), ("version", 3), ("format", "something else")]
)
def test_another_format_is_refused_by_name(folder, key, value):
    content = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", content | {key: value})
    words = r"this program reads 'lightning_distill answers' version 2\. Make the cache again"
    with pytest.raises(ValueError, match=words):
        AnswerStore(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"checksum": 3}', "\x00"])
def test_a_manifest_of_something_else_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DamagedCacheError, match="manifest.json is damaged"):
        AnswerStore(folder)


def test_a_folder_that_was_begun_and_one_without_anything_are_told_apart(folder, tmp_path):
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="was begun and not finished; give the command"):
        AnswerStore(folder)
    with pytest.raises(FileNotFoundError, match="with job=cache"):
        AnswerStore(tmp_path / "nothing")


# A process that dies at its n-th operation on files.
DYING = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import kept
import lightning_distill.sealed as sealed

left, fail = int(sys.argv[3]), sys.argv[4]
def counted(operation):
    def wrapper(*args, **options):
        global left
        left -= 1
        if left < 0:
            if fail == "kill":
                os._exit(9)
            raise OSError(28, "No space left on device")
        return operation(*args, **options)
    return wrapper

class System:
    replace, fsync = staticmethod(counted(os.replace)), staticmethod(counted(os.fsync))
    def __getattr__(self, name):
        return getattr(os, name)

sealed.os = System()
real = Path.open
def opened(self, mode="r", *args, **options):
    if "w" not in mode:
        return real(self, mode, *args, **options)
    file = counted(real)(self, mode, *args, **options)
    write = file.write
    class File:
        def __enter__(self): return self
        def __exit__(self, *error): file.close()
        def __getattr__(self, name): return getattr(file, name)
        def write(self, content):
            # Half of it, as a process that dies in the middle leaves it.
            write(content[: len(content) // 2]); file.flush()
            counted(write)(content[len(content) // 2 :])
    return File()
Path.open = opened
kept.keep(Path(sys.argv[2]))
print("operations left", left)
"""


def dying(folder: Path, at: int, how: str) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-c", DYING, str(TESTS), str(folder), str(at), how]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment)


def test_a_full_disk_is_one_clear_error_and_what_was_written_stays(tmp_path):
    done = dying(tmp_path / "kept", 12, "full")
    assert "No space left on device). What was written before is kept" in done.stderr
    assert not list((tmp_path / "kept").glob(".*.part"))
    assert list((tmp_path / "kept").glob("shard-*.safetensors"))
    with pytest.raises(FileNotFoundError, match="was begun and not finished"):
        AnswerStore(tmp_path / "kept")


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="this system does not fork: processes open the files by themselves",
)
def test_a_process_killed_at_any_operation_leaves_no_half_file(whole, tmp_path, truth):
    """Every file that has its name is whole; forked, for Python and torch start once."""
    complete = {p.name: p.read_bytes() for p in whole.iterdir()}
    at, outcomes = 0, []
    while True:
        folder = tmp_path / f"cut{at}"
        child = os.fork()
        if child == 0:
            sys.argv = ["-c", str(TESTS), str(folder), str(at), "kill"]
            try:
                exec(compile(DYING, "dying", "exec"), {"__name__": "dying"})
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        for path in folder.iterdir() if folder.exists() else ():
            if not path.name.startswith("."):
                assert path.read_bytes() == complete[path.name], (at, path.name)
        outcomes.append(code)
        words = refused_or_right(folder, truth)
        if "manifest.json" in {p.name for p in folder.iterdir()}:
            assert words is None
        else:
            assert "was begun and not finished" in words or "job=cache" in words
        # The same command again ends as if nothing had been.
        keep(folder)
        for part in folder.glob(".*.part"):
            part.unlink()
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == complete
        if code == 0:
            break
        at += 1
    # Four files of rows, the index and the manifest, five operations each.
    assert at == 6 * 5 and set(outcomes[:-1]) == {9}

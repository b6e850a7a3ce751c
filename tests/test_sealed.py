"""What was sealed and is not the same any more is never read."""

import errno
import os
import random
import subprocess
from pathlib import Path

import pytest
import torch
from processes import forked

from lightning_distill import sealed
from lightning_distill.sealed import (
    ChangedFileError,
    check_folder,
    check_sealed,
    is_sealed,
    read_sealed,
    remove_sealed,
    seal_folder,
    write_sealed,
    write_whole,
)

CONTENT = bytes(random.Random(0).randbytes(5000))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a file = of ours.ckpt"
    write_sealed(path, CONTENT)
    return path


def flipped(content, at):
    changed = bytearray(content)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def test_a_whole_file_is_read(file):
    assert read_sealed(file) == CONTENT
    check_sealed(file)
    assert [p.name for p in sorted(file.parent.iterdir())] == [file.name, f"{file.name}.sha256"]


def test_every_change_is_seen(file):
    draw = random.Random(1)
    flips = [flipped(CONTENT, draw.randrange(8 * len(CONTENT))) for _ in range(300)]
    cuts = [CONTENT[:n] for n in (0, 1, 100, 4999)]
    others = [CONTENT + b"\0", bytes(5000), draw.randbytes(5000), CONTENT[::-1]]
    for changed in flips + cuts + others:
        file.write_bytes(changed)
        with pytest.raises(ChangedFileError, match="is not what was written. Take a copy"):
            check_sealed(file)
        with pytest.raises(ChangedFileError):
            read_sealed(file)


@pytest.mark.parametrize("seal", [b"", b"\n", b"abc  name\n", b"\xff\xfe", b"0" * 64 + b"\n"])
def test_a_broken_seal_is_no_seal_that_fits(file, seal):
    file.with_name(f"{file.name}.sha256").write_bytes(seal)
    with pytest.raises(ChangedFileError, match=r"is not what was written|is empty"):
        check_sealed(file)


def test_a_file_without_a_seal_is_read_and_that_is_said(tmp_path, caplog):
    (tmp_path / "foreign").write_bytes(b"x")
    assert not is_sealed(tmp_path / "foreign")
    assert read_sealed(tmp_path / "foreign") == b"x"
    assert "has no foreign.sha256 beside it" in caplog.text


def test_the_seal_is_one_that_other_programs_read(file, tmp_path):
    seal_folder(tmp_path)
    for name in (f"{file.name}.sha256", "SHA256SUMS"):
        done = subprocess.run(["sha256sum", "-c", name], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, done


def _write(path, operation):
    """Write other content, and die before the given file operation."""
    left = [operation]

    def counted(function):
        def call(*arguments, **options):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return function(*arguments, **options)

        return call

    for name in ("replace", "fsync", "open"):
        setattr(os, name, counted(getattr(os, name)))
    write_sealed(path, CONTENT[::-1])
    os._exit(left[0] + 10)


def test_a_process_that_dies_at_any_operation_leaves_a_file_that_its_seal_fits(file):
    ended, seen = 9, set()
    operation = 0
    while ended == 9:
        write_sealed(file, CONTENT)
        process = forked(_write, file, operation)
        process.start()
        process.join()
        ended = process.exitcode
        seen.add(read_sealed(file))
        operation += 1
    assert ended == 10 and operation > 10
    assert seen == {CONTENT, CONTENT[::-1]}


def test_a_full_disk_leaves_what_was_there_and_says_what_to_do(file, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    words = rf"{file.name} could not be written \(No space left on device\).* MB are free\)"
    with pytest.raises(OSError, match=words):
        write_sealed(file, b"new")
    assert read_sealed(file) == CONTENT
    assert len(list(file.parent.iterdir())) == 2


def test_a_disk_that_is_full_in_the_middle_is_told_from_what_torch_says_of_it(file, monkeypatch):
    opened = Path.open

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.left -= 1
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(opened(path, mode)))
    checkpoint = {"a": torch.zeros(1000), "b": torch.zeros(1000)}
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\)"):
        write_sealed(file, lambda opened_file: torch.save(checkpoint, opened_file))
    monkeypatch.undo()
    assert read_sealed(file) == CONTENT and len(list(file.parent.iterdir())) == 2


@pytest.mark.parametrize("seal", [b"", b"garbage"])
def test_a_broken_seal_stops_no_later_save(file, seal):
    file.with_name(f"{file.name}.sha256").write_bytes(seal)
    write_sealed(file, b"new")
    assert read_sealed(file) == b"new" and len(list(file.parent.iterdir())) == 2


def test_nothing_is_left_beside_where_a_save_is_interrupted(file):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sealed(file, interrupted)
    assert read_sealed(file) == CONTENT and len(list(file.parent.iterdir())) == 2


def test_a_file_that_was_swapped_with_its_seal_is_another(file):
    other = file.with_name("best.ckpt")
    write_sealed(other, b"other")
    for ending in ("", ".sha256"):
        file.with_name(file.name + ending).write_bytes(Path(f"{other}{ending}").read_bytes())
    with pytest.raises(ChangedFileError, match="is not that of a file = of ours.ckpt"):
        check_sealed(file)


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(OSError, match="No such file or directory.*its folder is gone"):
        write_whole(tmp_path / "gone" / "file", b"x")


def test_a_removed_file_has_no_seal(file):
    remove_sealed(file)
    assert not list(file.parent.iterdir())
    remove_sealed(file)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("model.safetensors", "config.json", "inner/a.json"):
        (tmp_path / name).write_bytes(CONTENT)
    (tmp_path / "model.safetensors").chmod(0o600)
    seal_folder(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "inner/a.json"])
def test_a_folder_is_as_it_was_written(folder, name):
    assert check_folder(folder)
    (folder / name).write_bytes(flipped(CONTENT, 77))
    with pytest.raises(ChangedFileError, match=f"{name} is not what was written.*SHA256SUMS"):
        check_folder(folder)
    if name == "model.safetensors":
        assert check_folder(folder, weights=False)
    (folder / name).unlink()
    with pytest.raises(ChangedFileError, match=f"{name} is missing"):
        check_folder(folder, weights=False)


def test_weights_that_the_list_does_not_know_are_refused_and_all_files_may_be_read_alike(folder):
    modes = {(folder / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1
    lines = (folder / sealed.SUMS).read_text().splitlines()
    kept = [line for line in lines if not line.endswith("safetensors")]
    (folder / sealed.SUMS).write_text("\n".join(kept) + "\n")
    with pytest.raises(ChangedFileError, match="model.safetensors is none of the files of"):
        check_folder(folder)


def test_a_file_that_was_added_harms_nothing_and_a_folder_of_others_has_no_seal(folder, tmp_path):
    (folder / "README.md").write_text("mine")
    assert check_folder(folder)
    seal_folder(folder)
    assert "README.md" in (folder / sealed.SUMS).read_text()
    assert not check_folder(folder / "inner")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_a_list_that_leaves_its_folder_is_refused(folder, name):
    (folder / sealed.SUMS).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(ChangedFileError, match="is no line of it"):
        check_folder(folder)

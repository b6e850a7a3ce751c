"""One process writes into a folder at a time, and one that died locks nobody out."""

import json
import os
import subprocess

import pytest

from lightning_distill.cache.lock import _process, FolderLock, LOCK

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def held_by(folder, **changes):
    """A lock that another process left, by default that which started this one."""
    held = _process(os.getppid()) | {"key": "theirs"} | changes
    (folder / LOCK).write_text(json.dumps(held))
    return held


def gone() -> int:
    """The number of a process that is not there any more."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_folder_that_another_process_writes_into_is_refused_with_the_way_out(tmp_path):
    held = held_by(tmp_path)
    words = rf"Process {held['pid']} on {held['host']} writes into .* now\. Wait until it ends, or"
    with pytest.raises(ValueError, match=words + r" name another folder .*remove .*writing.lock"):
        FolderLock(tmp_path).acquire()
    assert json.loads((tmp_path / LOCK).read_text()) == held
    assert [p.name for p in tmp_path.iterdir()] == [LOCK]


def test_nobody_here_knows_whether_a_process_of_another_host_lives(tmp_path):
    held_by(tmp_path, host="another", pid=gone())
    with pytest.raises(ValueError, match="on another writes into"):
        FolderLock(tmp_path).acquire()


@pytest.mark.parametrize("why", ["dead", "its number is another's now", "damaged", "this one"])
def test_a_lock_that_nobody_holds_is_taken_over(tmp_path, why):
    if why == "dead":
        held_by(tmp_path, pid=gone())
    elif why == "damaged":
        (tmp_path / LOCK).write_text('{"pid": 1')
    elif why == "this one":
        FolderLock(tmp_path).acquire()
    else:
        held_by(tmp_path, started="long ago")
    lock = FolderLock(tmp_path)
    lock.acquire()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    lock.release()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_another_is_not_released(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.acquire()
    second.acquire()
    first.release()
    assert (tmp_path / LOCK).is_file()
    second.release()
    assert not list(tmp_path.iterdir())


@FORKS
def test_a_process_holds_it_until_it_is_killed(tmp_path):
    begun, told = os.pipe()
    child = os.fork()
    if child == 0:
        FolderLock(tmp_path).acquire()
        os.write(told, b"!")
        while True:
            os.read(begun, 0)
    os.read(begun, 1)
    with pytest.raises(ValueError, match=f"Process {child} on"):
        FolderLock(tmp_path).acquire()
    os.kill(child, 9)
    os.waitpid(child, 0)
    FolderLock(tmp_path).acquire()


@FORKS
def test_of_many_that_begin_at_once_one_gets_it(tmp_path):
    held_by(tmp_path, pid=gone())
    go, start = os.pipe()
    wait, end = os.pipe()
    results, tell = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            os.close(end)
            os.read(go, 1)
            answer = b"?"
            try:
                FolderLock(tmp_path).acquire()
                answer = b"y"
            except ValueError:
                answer = b"n"
            finally:
                os.write(tell, answer)
                # Alive until all have tried.
                os.read(wait, 1)
                os._exit(0)
        children.append(child)
    os.write(start, b"g" * 6)
    found = b"".join(os.read(results, 1) for _ in range(6))
    os.close(end)
    for child in children:
        os.waitpid(child, 0)
    assert sorted(found) == sorted(b"ynnnnn")

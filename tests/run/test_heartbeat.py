"""A process that dies or hangs ends all, and what is left behind says which one it was."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from processes import forked, free_port

from lightning_distill.run.heartbeat import Heartbeat


def stops_itself(heart):
    os.kill(os.getpid(), signal.SIGSTOP)


def reads_for_ever(heart):
    heart.step()
    while True:
        time.sleep(0.01)


def is_slow(heart):
    time.sleep(3)


def is_killed(heart):
    os.kill(os.getpid(), signal.SIGKILL)


def raises(heart):
    raise ValueError("the label 7 is none")


def _worker(rank, folder, port, fault, faulty):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)

    def report(words, stacks):
        Path(folder, f"{rank}.txt").write_text(f"{words}\n{stacks}")

    def made(address):
        return Heartbeat(rank, 2, address, 1.5, report, interval=0.1)

    address = [None]
    heart = None
    if rank == 0:
        heart = made(("127.0.0.1", 0))
        address = [heart.address]
    torch.distributed.broadcast_object_list(address)
    heart = heart or made(address[0])
    heart.start()
    try:
        for _ in range(3):
            heart.begin()
            time.sleep(0.2)
            torch.distributed.barrier()
            heart.step()
        if fault is is_slow:
            heart.pause()
        if rank == faulty:
            fault(heart)
        heart.begin()
        torch.distributed.barrier()
        heart.step()
    except Exception as error:
        cause = heart.explain(error)
        Path(folder, f"{rank}.txt").write_text(f"{type(cause).__name__}: {cause}")
        os._exit(3)
    heart.done()


def run(folder, fault, faulty):
    port = free_port()
    both = [forked(_worker, rank, str(folder), port, fault, faulty) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    codes = [process.exitcode for process in both]
    for process in both:
        process.kill()
    return codes, {int(p.stem): p.read_text() for p in folder.glob("*.txt")}


@pytest.mark.slow
@pytest.mark.parametrize("faulty", [0, 1])
def test_a_process_that_is_stopped_is_killed_and_named_by_the_other(tmp_path, faulty):
    codes, said = run(tmp_path, stops_itself, faulty)
    assert codes[faulty] == -signal.SIGKILL and codes[1 - faulty] == 1
    assert said[1 - faulty].startswith(f"Process {faulty} of 2 (pid ")
    assert "hangs: it has not answered for 1.5 seconds" in said[1 - faulty]
    assert "hang_seconds=SECONDS" in said[1 - faulty]


@pytest.mark.slow
@pytest.mark.parametrize("faulty", [0, 1])
def test_a_step_that_does_not_end_names_the_process_that_the_others_wait_for(tmp_path, faulty):
    codes, said = run(tmp_path, reads_for_ever, faulty)
    # Who waits may meet the end of the other before it ends itself.
    assert codes[faulty] == 1 and codes[1 - faulty] in (1, 3)
    for text in said.values():
        assert f"Process {faulty} of 2 (pid " in text
        assert "no batch has ended for 1.5 seconds" in text and "(reads_for_ever)" in text
        assert f"process {1 - faulty} at" in text
    assert any("Process 1 was at" in text for text in said.values())


@pytest.mark.slow
def test_a_pause_may_take_longer_than_a_step(tmp_path):
    assert run(tmp_path, is_slow, 0) == ([0, 0], {})


@pytest.mark.slow
@pytest.mark.parametrize("faulty", [0, 1])
def test_who_waited_for_a_killed_process_says_so_in_the_place_of_what_followed(tmp_path, faulty):
    codes, said = run(tmp_path, is_killed, faulty)
    assert codes[faulty] == -signal.SIGKILL and codes[1 - faulty] == 3
    assert said[1 - faulty].startswith(f"OtherProcessFailed: Process {faulty} of 2 (pid ")
    assert "has ended without a word" in said[1 - faulty]


@pytest.mark.slow
def test_an_error_of_one_is_told_to_the_other(tmp_path):
    codes, said = run(tmp_path, raises, 1)
    assert codes == [3, 3]
    assert said[1] == "ValueError: the label 7 is none"
    assert said[0] == "OtherProcessFailed: Process 1 of 2 has failed: the label 7 is none"

"""Tests over two processes, without starting Python and importing torch anew for each."""

import multiprocessing
import socket

import torch.multiprocessing as mp

multiprocessing.set_forkserver_preload(["torch", "torch.distributed", "hypothesis", "pytest"])


def in_two_processes(worker, arguments):
    """Call `worker(rank, *arguments)` for both ranks at once, forked from a process kept for it."""
    mp.start_processes(worker, arguments, nprocs=2, start_method="forkserver")


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

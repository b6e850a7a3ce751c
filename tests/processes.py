"""Tests over two processes, without starting Python and importing torch anew for each."""

import multiprocessing

import torch.multiprocessing as mp

multiprocessing.set_forkserver_preload(["torch", "torch.distributed", "hypothesis", "pytest"])


def in_two_processes(worker, arguments):
    """Call `worker(rank, *arguments)` for both ranks at once, forked from a process kept for it."""
    mp.start_processes(worker, arguments, nprocs=2, start_method="forkserver")

"""A run waits for another that makes the same thing."""

import json
import os
import threading

from lightning_distill.cache.lock import _process
from lightning_distill.run import one_at_a_time as module
from lightning_distill.run.one_at_a_time import one_at_a_time


def test_a_run_waits_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    lock = tmp_path / "key.lock"
    lock.write_text(json.dumps(_process(os.getppid()) | {"key": "theirs", "owner": "another"}))
    seen = []
    timer = threading.Timer(0.2, lambda: (seen.append("released"), lock.unlink()))
    timer.start()
    with caplog.at_level("INFO", "lightning_distill"), one_at_a_time(tmp_path / "key", "T", "me"):
        seen.append("entered")
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert seen == ["released", "entered"] and not lock.exists()
    assert caplog.text.count("another run makes it now, and this one waits for it") == 1


def test_another_process_of_the_same_run_does_not_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(module.rank_zero_only, "rank", 1, raising=False)
    lock = tmp_path / "key.lock"
    lock.write_text(json.dumps(_process(os.getppid()) | {"key": "theirs", "owner": "me"}))
    with one_at_a_time(tmp_path / "key", "T", "me"):
        assert lock.exists()
    assert lock.exists()

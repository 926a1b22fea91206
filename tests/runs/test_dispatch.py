"""Stopping work that engines do: what has begun saves, what has not is not waited for, and nothing is dropped."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from mutualign.errors import MutualignError
from mutualign.io.typed import encode_json
from mutualign.runs.dispatch import ATTEMPTS, DispatchObserver, dispatch
from mutualign.runs.engines import Engine
from mutualign.runs.work import Circumstances, Outcome, Work, do_work
from mutualign.training.loop import Stopped

STOPPED = encode_json(Outcome("stopped"))


class Fake(Engine):
    """An engine whose futures are pending until they have a result, as those of Ray and Dask are."""

    def __init__(self, jobs=None, options=None):
        self.futures: list[Future[str]] = []

    def submit(self, function, text):
        self.futures.append(Future())
        threading.Thread(target=self.work, args=(self.futures[-1], function, text)).start()
        return self.futures[-1]

    def work(self, future, function, text):
        future.set_result(function(text))

    def close(self):
        pass


class Queueing(Fake):
    """An engine that begins no work, and would tell if it did."""

    tells_beginning = True

    def work(self, future, function, text):
        pass


class Cancelling(Fake):
    """An engine that gives its work up by itself, as Dask does when the scheduler is lost."""

    def work(self, future, function, text):
        future.cancel()
        future.set_running_or_notify_cancel()


def test_work_that_may_have_begun_is_waited_for_and_sees_the_stop_file(tmp_path):
    stop, saw = tmp_path / "stop", []

    def save_when_stopped(text):
        while not stop.exists():
            time.sleep(0.01)
        saw.append(text)
        return STOPPED

    with pytest.raises(Stopped):
        dispatch(Fake(), save_when_stopped, [Work("a", "a"), Work("b", "b")], stop, lambda: True)
    assert sorted(saw) == ["a", "b"]
    assert not stop.exists()


def test_work_that_has_not_begun_is_not_waited_for(tmp_path):
    engine = Queueing()
    with pytest.raises(Stopped):
        dispatch(engine, str, [Work("a", "a")], tmp_path / "stop", lambda: True)
    assert engine.futures[0].cancelled()


def test_work_that_the_engine_cancels_is_tried_again_and_then_named_as_lost(tmp_path):
    engine = Cancelling()
    outcomes = dispatch(engine, str, [Work("a", "a")], tmp_path / "stop", lambda: False)
    assert outcomes == {"a": Outcome("lost", "the engine has cancelled it")}
    assert len(engine.futures) == ATTEMPTS


def test_an_engine_that_takes_no_more_work_is_an_error_with_its_words_and_a_hint(tmp_path):
    class Gone(Cancelling):
        """An engine whose cluster is lost with its first work."""

        def submit(self, function, text):
            if self.futures:
                raise ConnectionError("the scheduler is gone")
            return super().submit(function, text)

    with pytest.raises(MutualignError, match=r"fault    ConnectionError: the scheduler is gone\n  hint: "):
        dispatch(Gone(), str, [Work("a", "a")], tmp_path / "stop", lambda: False)
    assert not (tmp_path / "stop").exists()


@dataclass(frozen=True)
class Job:
    circumstances: Circumstances


def test_work_that_begins_after_the_stop_ends_at_once(tmp_path):
    (tmp_path / "stop").touch()
    text = encode_json(Job(Circumstances(tmp_path, Path("stop"), 1)))
    done = []
    assert do_work(text, Job, lambda job, stop: done.append(job)) == STOPPED
    assert not done


def test_an_engine_that_cannot_see_its_work_is_told_once_and_so_is_its_recovery(tmp_path, monkeypatch):
    engine, told, troubles = Queueing(), [], ["no answer", "no answer", "", ""]

    class Watcher(DispatchObserver):
        def trouble(self, what):
            told.append(what)

        def tick(self):
            if troubles:
                engine.trouble = troubles.pop(0)
            elif not engine.futures[0].done():
                engine.futures[0].set_result(encode_json(Outcome("complete")))

    monkeypatch.setattr("mutualign.runs.dispatch.TICK_SECONDS", 0)
    dispatch(engine, str, [Work("a", "a")], tmp_path / "stop", lambda: False, Watcher())
    assert told == ["no answer", ""]


def test_a_folder_of_results_that_cannot_be_made_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MutualignError, match=r"file/runs: cannot be written: Not a directory(.|\n)*hint: "):
        Circumstances.here(tmp_path / "file" / "runs", 1)


def test_work_has_its_threads_of_torch_and_no_more_of_numpy_and_scikit_learn(tmp_path):
    text = encode_json(Job(Circumstances(tmp_path, Path("stop"), 3)))
    before, found = threadpool_info(), []
    try:
        assert "complete" in do_work(text, Job, lambda job, stop: found.extend(threadpool_info()))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    assert {library["user_api"] for library in found} == {"blas", "openmp"}
    assert {library["num_threads"] for library in found} == {3}
    assert threadpool_info() == before

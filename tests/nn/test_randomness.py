"""Seeds: the same on every machine, different for different keys."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mutualign.nn.randomness import derive_seed, generator, seed_device, separate_draws


def test_a_seed_is_the_first_63_bits_of_the_sha_256_of_its_key():
    digest = hashlib.sha256(b"7/1/step/250/0").digest()
    expected = sum(byte << (8 * i) for i, byte in enumerate(digest[:8])) // 2
    assert derive_seed(7, 1, "step", 250, 0) == expected


def test_seeds_fit_torch_and_differ_from_key_to_key():
    seeds = [
        derive_seed(seed, stage, part, step)
        for seed in range(5)
        for stage in range(3)
        for part in ("step", "source")
        for step in range(50)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))


def test_the_parts_of_a_key_do_not_run_together():
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(1, "a") != derive_seed("1a")


def test_a_generator_starts_where_its_key_says_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, again, other = (torch.rand(8, generator=generator(*key)) for key in [(1, "x"), (1, "x"), (2, "x")])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, torch.rand(8, generator=torch.Generator().manual_seed(derive_seed(1, "x"))))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeding_a_device_gives_the_draws_of_manual_seed():
    torch.manual_seed(5)
    expected = torch.rand(3)
    seed_device(5, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_threads_do_not_take_draws_of_each_other():
    def draw(seed):
        with separate_draws(seed=seed):
            own = [float(torch.rand(()))]
            with separate_draws(seed=seed + 1):  # a thread may be in it twice
                own.append(float(torch.rand(())))
            return own + [float(torch.rand(())) for _ in range(50)]

    expected, before = [draw(seed) for seed in range(100)], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(draw, range(100))) == expected
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_is_forked_while_another_thread_draws_can_draw():
    inside, done = threading.Event(), threading.Event()

    def hold():
        with separate_draws():
            inside.set()
            done.wait()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        inside.wait()
        child = os.fork()
        if not child:
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)  # ends a child that waits for ever
                with separate_draws():
                    os._exit(0)
            finally:
                os._exit(1)
        done.set()
        assert os.waitpid(child, 0)[1] == 0


def test_separate_draws_leave_the_generators_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with separate_draws(seed=6):
        assert not torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_generator_of_a_device_of_any_kind_is_restored(kind, monkeypatch):
    restored = []
    monkeypatch.setattr(getattr(torch, kind), "get_rng_state", lambda device: f"state of {device}")
    monkeypatch.setattr(getattr(torch, kind), "set_rng_state", lambda state, device: restored.append((state, device)))
    device = torch.device(kind, 0)
    with separate_draws(device):
        assert restored == []
    assert restored == [(f"state of {device}", device)]

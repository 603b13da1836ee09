"""Pixels decoded at once stay within the budget, whoever asks for how many."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

from app.bundle.budget import PixelBudget
from app.bundle.decode import decode_image
from tests import tiny


def test_threads_never_hold_more_than_the_budget_except_one_alone() -> None:
    budget = PixelBudget(100)
    lock = threading.Lock()
    inside: list[int] = []

    def decode(pixels: int) -> None:
        with budget.hold(pixels):
            with lock:
                inside.append(pixels)
                assert sum(inside) <= 100 or inside == [pixels]
            time.sleep(0.0005)
            with lock:
                inside.remove(pixels)

    sizes = random.Random(0).choices([1, 30, 60, 100, 250], k=300)  # noqa: S311
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode, sizes))) == 300
    assert budget.held == 0


def test_decoding_holds_the_pixels_it_decodes_and_gives_them_back() -> None:
    budget = PixelBudget(10**6)
    held: list[int] = []
    spec = tiny.inputs().image
    assert spec is not None

    def hold(pixels: int) -> AbstractContextManager[None]:
        held.append(pixels)
        return budget.hold(pixels)

    decode_image(tiny.png((1, 2, 3), size=(40, 30)), spec, hold=hold)
    assert held == [1200]
    assert budget.held == 0

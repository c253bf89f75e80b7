"""Rates of a training: of whole windows, without the time that validations take."""

import time

from tributary.training.journal import Pace


def test_rates_are_those_of_the_last_whole_window_without_pauses(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    pace = Pace(5.0, peak=1000.0)

    def step(seconds: float, waiting: float) -> float:
        with pace.waiting():
            clock[0] += waiting
        clock[0] += seconds - waiting
        return pace.tick(32, 100.0)

    assert step(2.0, 0.5) == 5.0 + 2.0
    assert pace.rates == (16.0, 0.25, 0.05)  # so far: no window is whole
    step(2.0, 0.5)
    assert pace.log() == (16.0, 0.25, 0.05)
    assert pace.waits_ms == []
    with pace.paused():
        clock[0] += 1000.0
    step(1.0, 0.0)
    assert pace.rates == (16.0, 0.25, 0.05)
    assert pace.log() == pace.rates == (32.0, 0.0, 0.1)

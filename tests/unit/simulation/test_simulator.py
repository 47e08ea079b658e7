"""Virtual time: what waits for what."""

from tests.labs.calm_simulation import calm_simulator, started


def test_a_pause_is_held_up_by_what_pauses_on_top_of_it() -> None:
    simulator = calm_simulator()
    below, above = started(simulator, "below"), started(simulator, "above")
    seen: list[float] = []
    simulator.at(0, lambda: simulator.pause(10), below)
    simulator.at(1, lambda: simulator.pause(500), above)
    simulator.at(310, lambda: seen.append(below.away_s(0, simulator.now)))
    simulator.run_until(5)
    assert seen == [300]
    assert (simulator.now, below.away_s(0, simulator.now), above.away_s(0, simulator.now)) == (501, 491, 0)


def test_a_pause_in_time_is_no_absence() -> None:
    simulator = calm_simulator()
    alone = started(simulator, "alone")
    simulator.at(0, lambda: simulator.pause(10), alone)
    simulator.run_until(20)
    assert (alone.away_s(0, simulator.now), alone.held_up) == (0, [])


def test_what_was_killed_is_held_up_no_more() -> None:
    simulator = calm_simulator()
    below, above = started(simulator, "below"), started(simulator, "above")
    simulator.at(0, lambda: simulator.pause(10), below)
    simulator.at(1, lambda: simulator.pause(500), above)
    simulator.at(100, lambda: simulator.kill(below))
    simulator.run_until(5)
    back_at = below.up_since
    assert 100 < back_at < simulator.now
    assert below.away_s(0, simulator.now) == back_at - 10


def test_absences_at_the_same_time_count_once() -> None:
    process = started(calm_simulator(), "process")
    process.outages += [(10, 30), (20, 40), (25, 28), (50, 60)]
    assert process.away_s(15, 55) == 30

"""Virtual time: what waits for what."""

from tests.unit.simulation.calm import calm_hub, started


def test_a_pause_is_held_up_by_what_pauses_on_top_of_it() -> None:
    hub = calm_hub()
    below, above = started(hub, "below"), started(hub, "above")
    told: list[float] = []
    hub.at(0, lambda: hub.pause(10), below)
    hub.at(1, lambda: hub.pause(500), above)
    hub.at(310, lambda: told.append(below.away_s(0, hub.now)))
    hub.run_until(5)
    assert told == [300]
    assert (hub.now, below.away_s(0, hub.now), above.away_s(0, hub.now)) == (501, 491, 0)


def test_a_pause_in_time_is_no_absence() -> None:
    hub = calm_hub()
    alone = started(hub, "alone")
    hub.at(0, lambda: hub.pause(10), alone)
    hub.run_until(20)
    assert (alone.away_s(0, hub.now), alone.held_up) == (0, [])


def test_what_was_killed_is_held_up_no_more() -> None:
    hub = calm_hub()
    below, above = started(hub, "below"), started(hub, "above")
    hub.at(0, lambda: hub.pause(10), below)
    hub.at(1, lambda: hub.pause(500), above)
    hub.at(100, lambda: hub.kill(below))
    hub.run_until(5)
    back_at = below.up_since
    assert 100 < back_at < hub.now
    assert below.away_s(0, hub.now) == back_at - 10


def test_absences_at_the_same_time_count_once() -> None:
    process = started(calm_hub(), "process")
    process.outages += [(10, 30), (20, 40), (25, 28), (50, 60)]
    assert process.away_s(15, 55) == 30

"""A controller whose clock was ahead dated a heartbeat in the future: its host, silent since, stayed up until that time
had come, and its heartbeats of lower numbers were refused as late ones for as long."""

from pathlib import Path

from controller.operations.hosts import lost_hosts
from tests.labs.cloud import TestCloud

_AHEAD_S = 3600


def test_it_is_down_when_it_has_been_silent_for_long(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    try:
        site.heartbeat()
        site.clock.advance(_AHEAD_S)
        site.heartbeat()
        site.clock.advance(-_AHEAD_S)
        assert site.cloud.write(lost_hosts.mark_lost) == []
        site.clock.advance(site.cloud.settings.controller.host_down_after_s + 1)
        assert site.cloud.write(lost_hosts.mark_lost) == ["h1"]
    finally:
        site.close()

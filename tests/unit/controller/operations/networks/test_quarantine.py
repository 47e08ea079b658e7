"""Addresses of guests that may still run on a removed host."""

import pytest

from controller.domain.errors import AddressInUse, Conflict, HostNotFound, InUse
from controller.domain.guests import Power
from controller.domain.messages import GuestState
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.hosts import force_removal, hosts, lost_hosts
from controller.operations.instances.launch import launch
from controller.operations.networks import networks, quarantine
from tests.labs.cloud import TestCloud, active, place


def lose(site: TestCloud, *, fenced: bool = False) -> None:
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1", fenced=fenced))
    site.bus.sent.clear()


def kept(site: TestCloud) -> list[tuple[str, str]]:
    return [(q.ip, q.instance) for q in site.cloud.read(quarantine.list_quarantined)]


def free(site: TestCloud) -> int:
    def count(tx):  # type: ignore[no-untyped-def]
        (network,) = networks.usable_networks(tx, site.project_id)
        return networks.free_addresses_of(tx, [network])[network.id]

    return int(site.cloud.read(count))


@pytest.fixture
def closed(site: TestCloud) -> TestCloud:
    """A site in which hosts join."""
    site.heartbeat("h1")
    object.__setattr__(site.cloud.settings.controller, "open_registration", "false")
    return site


def test_an_address_in_use_is_kept(closed: TestCloud) -> None:
    site = closed
    one, two = active(site, 2)
    addresses = {i: site.views([i])[0].ip for i in (one, two)}
    before = free(site)
    lose(site)
    assert kept(site) == [(addresses[i], i) for i in sorted(addresses, key=lambda i: addresses[i])]
    assert free(site) == before
    with pytest.raises(AddressInUse, match="host h1, which was removed"):
        site.cloud.write(lambda tx: launch(tx, site.request(1, address=addresses[one])))
    network_id = site.cloud.read(lambda tx: networks.usable_networks(tx, site.project_id)[0].id)
    with pytest.raises(InUse):
        site.cloud.write(lambda tx: networks.delete_network(tx, network_id))
    assert site.cloud.read(audit) == []


def test_it_ends_with_the_new_epoch_of_the_host(closed: TestCloud) -> None:
    site = closed
    one, two = active(site, 2)
    generations = {i: site.instance(i).generation for i in (one, two)}
    lose(site)
    both = tuple(GuestState(i, g, Power.RUNNING) for i, g in sorted(generations.items()))
    site.heartbeat(epoch=1, sequence=5, asks=True)  # the old epoch: what it is about to begin is not known
    assert len(kept(site)) == 2
    site.heartbeat(epoch=2, sequence=6, guests=both)
    assert len(kept(site)) == 2
    site.heartbeat(epoch=2, sequence=7, guests=(both[0],), pending=(both[1].instance_id,))
    assert len(kept(site)) == 2
    site.heartbeat(epoch=2, sequence=8, guests=(both[0],))
    assert [i for _, i in kept(site)] == [both[0].instance_id]
    site.heartbeat(epoch=2, sequence=9)
    assert kept(site) == []


def test_it_ends_too_when_the_host_has_registered_again(site: TestCloud) -> None:
    (one,) = active(site)
    lose(site)
    site.heartbeat(epoch=1, sequence=5)
    assert [i for _, i in kept(site)] == [one]
    site.heartbeat(epoch=3, sequence=6)
    assert kept(site) == []


def test_an_operator_says_that_the_host_is_dead(closed: TestCloud) -> None:
    site = closed
    active(site, 2)
    with pytest.raises(Conflict, match="is registered"):
        site.cloud.write(lambda tx: quarantine.fence(tx, "h1"))
    with pytest.raises(HostNotFound):
        site.cloud.write(lambda tx: quarantine.fence(tx, "h2"))
    before = free(site)
    lose(site)
    assert site.cloud.write(lambda tx: quarantine.fence(tx, "h1")) == 2
    assert (kept(site), free(site)) == ([], before + 2)
    assert site.cloud.write(lambda tx: quarantine.fence(tx, "h1")) == 0


def test_fenced_at_once(closed: TestCloud) -> None:
    site = closed
    active(site, 2)
    before = free(site)
    lose(site, fenced=True)
    assert (kept(site), free(site)) == ([], before + 2)
    assert site.cloud.read(lambda tx: quarantine.removed_host(tx, "h1").fenced_at) == site.clock()


def test_dhcp_may_remember_who_had_it(closed: TestCloud) -> None:
    """After quarantine an address rests as one that was given back."""
    site = closed
    object.__setattr__(site.cloud.settings.network, "driver", "linux")
    active(site, 1)
    before = free(site)
    lose(site)
    site.clock.advance(2 * site.cloud.settings.network.lease_s)
    site.cloud.write(lambda tx: quarantine.fence(tx, "h1"))
    assert free(site) == before
    site.clock.advance(site.cloud.settings.network.lease_s + 1)
    assert free(site) == before + 1


def test_a_full_network_takes_no_quarantined_address(site: TestCloud) -> None:
    """However many are asked for."""
    ids = active(site, 3)
    addresses = {site.views([i])[0].ip for i in ids}
    lose(site)
    site.heartbeat("h2", vcpus=64)
    again = site.launch(5)
    place(site)
    assert site.states(again) == [State.BUILDING] * 5
    assert not addresses & {site.views([i])[0].ip for i in again}
    assert site.cloud.read(hosts.list_hosts)[0].id == "h2"

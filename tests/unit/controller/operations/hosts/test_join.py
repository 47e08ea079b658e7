"""Joining and heartbeats: tokens, renewal, drift, MAC addresses; what cannot be true is refused by name."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from controller.db.models import Host, Lease, LeasePin
from controller.domain.drift import drift
from controller.domain.errors import (
    AuthenticationFailed,
    CloudError,
    Conflict,
    InUse,
    InvalidParameter,
    NotAuthorized,
    NotFound,
    PoisonMessage,
)
from controller.domain.host_facts import normal_macs
from controller.domain.hosts import HostMode
from controller.domain.messages import PROBE_PENDING, HostReported
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts, join, lost_hosts, renewal
from controller.operations.hosts.macs import MacDisagreement, MacFault
from controller.operations.networks import networks
from tests.labs.cloud import TestCloud, place

FACTS = HostReported(
    host="rack1-7",
    at="2026-01-01T00:00:00+00:00",
    boot_id="boot-1",
    hypervisor="kvm",
    vcpus=8,
    memory_mib=16384,
    disk_gib=100,
    labels=("ssd", "gpu"),
    disk_backends=("qcow2",),
    images=("ab" * 32,),
    allowed_macs=("52:54:00:00:00:01",),
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, bus__url="amqp://agent:secret@broker//", api__zone="z1")
    yield made
    made.close()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, controller__open_registration="false")
    yield made
    made.close()


def token(site: TestCloud, pattern: str = "*", uses: int = 1, valid: timedelta = timedelta(days=1)) -> str:
    return site.cloud.write(lambda tx: join.create_token(tx, pattern, uses, valid)[1])


def join_(site: TestCloud, secret: str, **changes: Any) -> join.Joined:
    return site.cloud.write(lambda tx: join.join(tx, secret, replace(FACTS, **changes)))


def host(site: TestCloud, name: str = FACTS.host) -> Host:
    return site.cloud.read(lambda tx: hosts.get_host(tx, name))


def beat(site: TestCloud, **changes: Any) -> Host | None:
    message = replace(FACTS, at=site.clock().isoformat(), **changes)
    site.cloud.write(lambda tx: renewal.renew_hosts(tx, [message]))
    return site.cloud.read(lambda tx: tx.session.get(Host, message.host))


def uses_left(site: TestCloud) -> int:
    return site.cloud.read(lambda tx: join.list_tokens(tx)[0].uses_left)


# --- tokens ---


def test_a_host_joins_and_is_up_with_its_first_heartbeat(site: TestCloud) -> None:
    joined = join_(site, token(site, "rack1-*"))
    assert (joined.host, joined.renewed, joined.cloud_id) == ("rack1-7", False, "c10dc10d")
    assert (joined.bus_url, joined.zone) == ("amqp://agent:secret@broker//", "z1")
    row = host(site)
    assert (row.up, row.mode, row.labels, row.images, row.zone) == (False, HostMode.READY, "gpu,ssd", "ab" * 32, "z1")
    assert row.allowed_macs == "52:54:00:00:00:01"
    beat(site)
    assert host(site).up


def test_the_secret_is_not_kept(site: TestCloud) -> None:
    secret = token(site)
    (kept,) = site.cloud.read(join.list_tokens)
    assert secret not in str(vars(kept))
    assert len(kept.token_sha256) == 64


def test_a_token_is_used_up_expired_revoked_or_for_others(site: TestCloud) -> None:
    once = token(site)
    join_(site, once, host="a", boot_id="a")
    with pytest.raises(AuthenticationFailed, match="used up"):
        join_(site, once, host="b", boot_id="b")
    with pytest.raises(NotAuthorized, match=r"join as 'rack2-1': the token is for hosts named rack1-\*"):
        join_(site, token(site, "rack1-*"), host="rack2-1")
    with pytest.raises(AuthenticationFailed, match="no such join token"):
        join_(site, "nonsense")
    short = token(site, valid=timedelta(minutes=5))
    site.clock.advance(301)
    with pytest.raises(AuthenticationFailed, match="expired at 2026-01-01T00:05:00Z"):
        join_(site, short)
    revoked = token(site)
    ids = [t.id for t in site.cloud.read(join.list_tokens)]
    for token_id in ids:
        site.cloud.write(lambda tx, i=token_id: join.revoke_token(tx, i))  # type: ignore[misc]
    with pytest.raises(AuthenticationFailed, match="revoked"):
        join_(site, revoked)
    with pytest.raises(NotFound):
        site.cloud.write(lambda tx: join.revoke_token(tx, ids[0]))


@pytest.mark.parametrize(
    "arguments",
    [("", 1), ("x" * 256, 1), ("a b", 1), ("a\n", 1), ("*", 0), ("*", -1), ("*", 10**9)],
)
def test_a_bad_token_is_not_made(site: TestCloud, arguments: tuple[str, int]) -> None:
    with pytest.raises(InvalidParameter):
        token(site, *arguments)
    for valid in (timedelta(), timedelta(days=-1), timedelta(days=3000)):
        with pytest.raises(InvalidParameter):
            token(site, valid=valid)


def test_old_tokens_are_forgotten(site: TestCloud) -> None:
    token(site, valid=timedelta(hours=1))
    site.clock.advance(8 * 86400)
    token(site)
    assert len(site.cloud.read(join.list_tokens)) == 1


# --- joining again ---


def test_the_same_host_joins_again_for_nothing(site: TestCloud) -> None:
    secret = token(site)
    join_(site, secret)
    beat(site, vcpus=4)
    assert host(site).drift == "vcpus 8 -> 4"
    again = join_(site, secret, vcpus=6)
    assert (again.renewed, uses_left(site)) == (True, 0)
    assert (host(site).vcpus, host(site).drift, host(site).up) == (6, "", True)


def test_a_living_hosts_name_is_refused_a_dead_ones_is_taken_over(site: TestCloud) -> None:
    secret = token(site, uses=2)
    join_(site, secret)
    with pytest.raises(Conflict, match="Another host named 'rack1-7' is alive"):
        join_(site, secret, boot_id="other")  # it has just joined
    beat(site)
    site.clock.advance(1000)
    with pytest.raises(Conflict):
        join_(site, secret, boot_id="other")  # it has not been found down yet
    assert uses_left(site) == 1
    site.cloud.write(lost_hosts.mark_lost)
    assert join_(site, secret, boot_id="other").renewed
    assert uses_left(site) == 0


def test_a_host_without_a_boot_id_is_never_the_same(site: TestCloud) -> None:
    secret = token(site, uses=2)
    join_(site, secret, boot_id="")
    with pytest.raises(Conflict):
        join_(site, secret, boot_id="")


def test_an_agents_own_account_is_told(tmp_path: Path) -> None:
    url = "amqp://less:secret@broker//"
    site = TestCloud.create(tmp_path, bus__url="amqp://all:secret@broker//", compute__agent_bus_url=url)
    assert join_(site, token(site)).bus_url == url
    site.close()


def test_no_host_joins_an_embedded_bus(closed: TestCloud) -> None:
    with pytest.raises(Conflict, match="RabbitMQ"):
        join_(closed, token(closed))


# --- what cannot be true ---

BAD: list[tuple[str, dict[str, Any]]] = [
    *(("name", {"host": n}) for n in ("", "a" * 64, "-a", "a-", "a b", "a/b", "..", "ä", "a\n", "a#", "*")),
    *(("vcpus", {"vcpus": n}) for n in (-1, 0, 10**6, 2**63)),
    *(("memory_mib", {"memory_mib": n}) for n in (-1, 0, 2**31)),
    *(("disk_gib", {"disk_gib": n}) for n in (-1, 2**31)),
    *(("hypervisor", {"hypervisor": h}) for h in ("", "KVM!", "x" * 17)),
    *(("architecture", {"architecture": a}) for a in ("", "x86 64")),
    *(("zone", {"zone": z}) for z in ("z" * 64, "a,b", "-")),
    *(("boot_id", {"boot_id": b}) for b in ("b" * 65, "a\x00")),
    ("labels", {"labels": tuple(f"l{n}" for n in range(33))}),
    ("labels", {"labels": tuple(f"{'l' * 50}{n}" for n in range(10))}),
    *(("labels", {"labels": (label,)}) for label in ("", "a,b", "a b", "x" * 64, "-")),
    ("images", {"images": ("nonsense",)}),
    ("images", {"images": ("ab" * 32,) * 257}),
    ("disk_backends", {"disk_backends": ("../x",)}),
    ("disk_backends", {"disk_backends": ("qcow2",) * 9}),
    ("allowed_macs", {"allowed_macs": ("52:54:00:00:00",)}),
    ("allowed_macs", {"allowed_macs": ("52:54:00:00:00:0A",)}),
    ("allowed_macs", {"allowed_macs": ("52:54:00:00:00:01",) * 4097}),
    ("probe_error", {"probe_error": "x" * 501}),
]


@pytest.mark.parametrize(("field", "changes"), BAD)
def test_what_cannot_be_true_is_refused_by_field(site: TestCloud, field: str, changes: dict[str, Any]) -> None:
    secret = token(site)
    with pytest.raises(InvalidParameter) as caught:
        join_(site, secret, **changes)
    assert caught.value.fields["parameter"] == field
    assert len(str(caught.value)) < 300
    assert uses_left(site) == 1
    if changes not in ({"vcpus": 0}, {"memory_mib": 0}):
        with pytest.raises(PoisonMessage, match=field):
            beat(site, **changes)


# --- heartbeats ---


def test_a_host_that_never_joined_is_not_registered(closed: TestCloud) -> None:
    assert beat(closed) is None
    closed.heartbeat("h1")
    assert closed.cloud.read(hosts.list_hosts) == []


@pytest.mark.parametrize(
    ("url", "setting", "opened"),
    [
        ("memory://", "auto", True),
        ("amqp://b//", "auto", False),
        ("amqp://b//", "true", True),
        ("memory://", "false", False),
    ],
)
def test_whether_registration_is_open(tmp_path: Path, url: str, setting: str, opened: bool) -> None:
    site = TestCloud.create(tmp_path, bus__url=url, controller__open_registration=setting)
    assert (beat(site) is not None) is opened
    site.close()


def test_unchanged_heartbeats_are_one_statement_for_all_hosts(site: TestCloud) -> None:
    secret = token(site, uses=50)
    names = [f"h{n}" for n in range(50)]
    for name in names:
        join_(site, secret, host=name)
    beats = [replace(FACTS, host=n) for n in names]
    site.cloud.write(lambda tx: renewal.renew_hosts(tx, beats))
    site.clock.advance(5)
    statements: list[str] = []
    beats = [replace(b, sequence=n) for n, b in enumerate(beats, 10**12)]
    event.listen(site.cloud.database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    site.cloud.write(lambda tx: renewal.renew_hosts(tx, beats))
    assert [s.split()[0] for s in statements if not s.startswith(("BEGIN", "COMMIT"))] == ["SELECT", "UPDATE"]
    assert statements[-1].startswith("UPDATE hosts SET last_seen_at=?, heartbeat_sequence=CASE hosts.id WHEN")
    assert {h.id: h.heartbeat_sequence for h in site.cloud.read(hosts.list_hosts)} == {
        b.host: b.sequence for b in beats
    }
    assert {h.last_seen_at for h in site.cloud.read(hosts.list_hosts)} == {site.clock()}


def test_drift_is_shown_until_it_is_accepted_or_gone(site: TestCloud) -> None:
    join_(site, token(site))
    beat(site)
    assert host(site).drift == ""
    beat(site, memory_mib=8192, labels=("ssd",))
    assert host(site).drift == "memory_mib 16384 -> 8192; labels gpu,ssd -> ssd"
    assert host(site).memory_limit_mib == 8192
    beat(site, memory_mib=4096, labels=("ssd",))
    beat(site, memory_mib=4096)
    assert host(site).drift == "memory_mib 16384 -> 4096"  # against what was registered, not the last heartbeat
    beat(site)
    assert host(site).drift == ""
    beat(site, hypervisor="qemu", architecture="aarch64", zone="z9", labels=(), disk_backends=())
    expected = "hypervisor kvm -> qemu; architecture x86_64 -> aarch64; zone z1 -> z9; disk_backends qcow2 -> -; "
    assert host(site).drift == expected + "labels gpu,ssd -> -"
    site.cloud.write(lambda tx: hosts.accept(tx, FACTS.host))
    beat(site, hypervisor="qemu", architecture="aarch64", zone="z9", labels=(), disk_backends=())
    assert host(site).drift == ""
    with pytest.raises(NotFound):
        site.cloud.write(lambda tx: hosts.accept(tx, "nobody"))


def test_more_is_no_drift_and_a_disk_may_breathe(site: TestCloud) -> None:
    join_(site, token(site))
    beat(site, vcpus=16, disk_backends=("lvm", "qcow2"))
    assert (host(site).vcpus, host(site).drift) == (16, "")
    for disk_gib in (99, 97, 103):
        beat(site, vcpus=16, disk_backends=("lvm", "qcow2"), disk_gib=disk_gib)
        assert host(site).disk_gib == 100
    for disk_gib in (96, 93, 90, 87):
        beat(site, vcpus=16, disk_backends=("lvm", "qcow2"), disk_gib=disk_gib)
    assert host(site).drift == "disk_gib 100 -> 87"  # slowly is drift too


def test_less_than_is_claimed_is_drift(site: TestCloud) -> None:
    join_(site, token(site))
    beat(site)
    site.launch(4)
    place(site)
    beat(site, vcpus=0, memory_mib=256)
    text = host(site).drift
    assert "4 vCPUs are claimed, 0 may be" in text
    assert "512 MiB of memory are claimed, 256 may be" in text
    site.cloud.write(lambda tx: hosts.accept(tx, FACTS.host))
    assert host(site).drift.startswith("4 vCPUs are claimed")
    beat(site)
    assert host(site).drift == ""


def test_the_longest_drift_fits(site: TestCloud) -> None:
    labels = tuple(f"{n:02d}{'l' * 28}" for n in range(10))
    join_(site, token(site), labels=labels, zone="z" * 63)
    for other in range(3):
        now = tuple(f"{n:02d}{'m' * 27}{other}" for n in range(10))
        beat(site, labels=now, zone="y" * 63, probe_error="e" * 500, vcpus=1)
        assert len(host(site).drift) <= 1024
    beat(site, labels=labels, zone="z" * 63)
    assert host(site).drift == ""
    assert len(drift("", dict.fromkeys(_facts(), "0"), dict.fromkeys(_facts(), "1" * 900))) == 1024


def _facts() -> tuple[str, ...]:
    return ("vcpus", "memory_mib", "disk_gib", "hypervisor", "architecture", "zone", "disk_backends", "labels")


def test_a_probe_that_fails_leaves_the_last_good_list(site: TestCloud) -> None:
    join_(site, token(site))
    beat(site, allowed_macs=None, probe_error=PROBE_PENDING)
    assert (host(site).allowed_macs, host(site).drift) == ("52:54:00:00:00:01", "")
    beat(site, allowed_macs=None, probe_error="killed; vcpus 1 -> 2")
    assert (host(site).allowed_macs, host(site).drift) == ("52:54:00:00:00:01", "MAC probe: killed, vcpus 1 -> 2")
    beat(site, allowed_macs=())
    assert (host(site).allowed_macs, host(site).drift) == ("", "")
    beat(site, allowed_macs=None)
    assert host(site).allowed_macs is None


# --- MAC addresses and pins ---


def _pin(site: TestCloud, macs: list[str], host_id: str) -> None:
    def write(tx: Transaction) -> None:
        network = networks.create_network(tx, None, f"net-{host_id}")
        tx.session.flush()
        for n, mac in enumerate(macs):
            lease = Lease(network_id=network.id, ip=f"10.9.{network.number}.{n}", mac=mac)
            tx.session.add(lease)
            tx.session.flush()
            tx.session.add(LeasePin(lease_id=lease.id, host_id=host_id))

    site.cloud.write(write)


def test_where_probe_and_pins_disagree(site: TestCloud) -> None:
    secret = token(site, uses=3)
    join_(site, secret, host="h1", allowed_macs=("52:54:00:00:00:01", "52:54:00:00:00:02"))
    join_(site, secret, host="h2", boot_id="b2", allowed_macs=None)
    join_(site, secret, host="h3", boot_id="b3", allowed_macs=())
    _pin(site, ["52:54:00:00:00:01", "52:54:00:00:00:07"], "h1")
    _pin(site, ["52:54:00:00:00:08"], "h2")
    _pin(site, ["52:54:00:00:00:09"], "h3")
    found = site.cloud.read(hosts.mac_disagreements)
    assert [(d.host_id, d.mac[-2:], d.fault) for d in found] == [
        ("h1", "02", MacFault.NO_LEASE),
        ("h1", "07", MacFault.NOT_ALLOWED),
        ("h3", "09", MacFault.NOT_ALLOWED),
    ]
    shown = site.cloud.read(lambda tx: hosts.show_host(tx, "h1"))
    assert (shown.mac_disagreements, shown.pins) == (found[:2], 2)
    assert isinstance(found[0], MacDisagreement)
    assert all(d.mac in str(d) and d.host_id in str(d) for d in found)
    with pytest.raises(InUse, match="1 pinned lease"):
        site.cloud.write(lambda tx: hosts.remove_host(tx, "h3"))


def test_a_host_with_claims_and_pins_stays(site: TestCloud) -> None:
    join_(site, token(site))
    beat(site)
    ids = site.launch(2)
    place(site)
    assert site.states(ids) == [State.BUILDING] * 2
    _pin(site, ["52:54:00:00:00:0a"], FACTS.host)
    with pytest.raises(InUse, match=r"2 instances and 1 pinned lease: terminate them, .*; import the leases"):
        site.cloud.write(lambda tx: hosts.remove_host(tx, FACTS.host))


def test_macs_are_normal() -> None:
    lines = ["# all of them", "52-54-00-00-00-0B  # eth0", "", " 52:54:00:00:00:0a ", "52:54:00:00:00:0b"]
    assert normal_macs(lines) == ("52:54:00:00:00:0a", "52:54:00:00:00:0b")
    for bad in ("52:54:00:00:00", "nonsense", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "52:54-00:00:00:0g", "\x1b[0m"):
        with pytest.raises(CloudError, match="line 2"):
            normal_macs(["52:54:00:00:00:0a", bad])

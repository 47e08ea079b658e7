"""Leases of a pinned network: imported all or none, as often as one likes, and exported as they were."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from controller.db.models import Instance, Lease, LeasePin
from controller.domain.errors import InvalidParameter, LeasesRefused, NetworkNotFound
from controller.domain.lease_file import LeaseFile, LeaseFormat, LeaseRow, read_leases, write_leases
from controller.domain.messages import PrepareNetworks
from controller.domain.names import is_dns_label
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts
from controller.operations.networks import networks, pinned_leases
from controller.operations.networks.pinned_leases import LeaseChanges, export_leases, import_leases, preview_import
from tests.labs.cloud import TestCloud
from tests.labs.pinned_network import PinnedSite

GOOD = """\
ip,mac,name,hosts
10.20.0.10,52:54:00:AA:00:10,Web-1,h1 h2
10.20.0.11,52-54-00-aa-00-11,,h2
10.20.0.12,52:54:00:aa:00:12,web-3,h1;h2;h3
"""


@pytest.fixture
def pinned(site: TestCloud) -> PinnedSite:
    return PinnedSite(site)


@pytest.fixture
def refused(pinned: PinnedSite) -> Callable[..., list[str]]:
    """Import what must be refused; the bad rows. Whatever was there is as it was."""

    def run(text: str, *, prune: bool = False) -> list[str]:
        before = pinned.rows()
        file = read_leases(text.encode(), LeaseFormat.CSV)
        for operation in (preview_import, import_leases):
            with pytest.raises(LeasesRefused) as caught:
                pinned.cloud.cloud.write(lambda tx, o=operation: o(tx, pinned.network, file, prune=prune))  # type: ignore[misc]
        assert pinned.rows() == before
        return [str(r) for r in caught.value.fields["rows"]]

    return run


def counts(changes: LeaseChanges) -> tuple[int, int, int, int]:
    return len(changes.added), len(changes.changed), changes.unchanged, len(changes.removed)


def test_twice_is_once_and_what_is_exported_is_unchanged(pinned: PinnedSite) -> None:
    assert counts(pinned.take(GOOD)) == (3, 0, 0, 0)
    assert [m.network_ids for m in pinned.cloud.bus.take(PrepareNetworks)] == [(pinned.network,)]
    assert pinned.rows() == [
        LeaseRow(0, "10.20.0.10", "52:54:00:aa:00:10", "web-1", ("h1", "h2")),
        LeaseRow(0, "10.20.0.11", "52:54:00:aa:00:11", "", ("h2",)),
        LeaseRow(0, "10.20.0.12", "52:54:00:aa:00:12", "web-3", ("h1", "h2", "h3")),
    ]
    assert counts(pinned.take(GOOD)) == (0, 0, 3, 0)
    for form in LeaseFormat:
        again = read_leases(write_leases(pinned.rows(), form).encode(), form)
        assert counts(pinned.take_file(again, prune=True)) == (0, 0, 3, 0)
    assert pinned.cloud.bus.take(PrepareNetworks) == []


def test_a_preview_changes_nothing(pinned: PinnedSite) -> None:
    file = read_leases(GOOD.encode(), LeaseFormat.CSV)
    assert counts(pinned.cloud.cloud.write(lambda tx: preview_import(tx, pinned.network, file))) == (3, 0, 0, 0)
    assert pinned.rows() == []


def test_free_leases_change_as_one_likes_and_may_change_places(pinned: PinnedSite) -> None:
    pinned.take(GOOD)
    changed = """\
ip,mac,name,hosts
10.20.0.10,52:54:00:aa:00:11,web-3,h3
10.20.0.11,52:54:00:aa:00:10,web-1,h2
10.20.0.12,52:54:00:aa:00:12,other,h1 h2
10.20.0.13,52:54:00:aa:00:13,,h1
"""
    assert counts(pinned.take(changed)) == (1, 3, 0, 0)
    assert write_leases(pinned.rows(), LeaseFormat.CSV) == changed
    assert pinned.cloud.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(LeasePin))) == 5


def test_missing_leases_stay_unless_they_are_pruned(pinned: PinnedSite) -> None:
    pinned.take(GOOD)
    one = "ip,mac,name,hosts\n10.20.0.11,52:54:00:aa:00:11,,h2\n"
    assert counts(pinned.take(one)) == (0, 0, 1, 0)
    assert len(pinned.rows()) == 3
    assert counts(pinned.take(one, prune=True)) == (0, 0, 1, 2)
    assert [r.ip for r in pinned.rows()] == ["10.20.0.11"]
    assert counts(pinned.take("ip,mac,hosts\n", prune=True)) == (0, 0, 0, 1)


def test_the_address_of_one_that_is_pruned_may_be_used_again(
    pinned: PinnedSite, refused: Callable[..., list[str]]
) -> None:
    pinned.take(GOOD)
    moved = "ip,mac,name,hosts\n10.20.0.99,52:54:00:aa:00:10,web-3,h1\n"
    (bad,) = refused(moved)
    assert "MAC 52:54:00:aa:00:10 belongs to 10.20.0.10, which the file does not name" in bad
    assert "name web-3 belongs to 10.20.0.12" in bad
    assert counts(pinned.take(moved, prune=True)) == (1, 0, 0, 3)


def test_a_lease_in_use(pinned: PinnedSite, refused: Callable[..., list[str]]) -> None:
    pinned.take(GOOD)
    instance = pinned.use("10.20.0.10", "h1")
    renamed = "ip,mac,name,hosts\n10.20.0.10,52:54:00:aa:00:10,db-1,h1 h3\n"
    assert counts(pinned.take(renamed)) == (0, 1, 0, 0)
    row = "ip,mac,name,hosts\n10.20.0.10,{},db-1,{}\n"
    assert refused(row.format("52:54:00:aa:00:10", "h2 h3")) == [
        f"line 2: 10.20.0.10 is in use by {instance} on h1, which has to stay among its hosts"
    ]
    (bad,) = refused(row.format("52:54:00:aa:00:77", "h1"))
    assert "its MAC address 52:54:00:aa:00:10 cannot change" in bad
    assert refused("ip,mac,hosts\n", prune=True) == [
        f"not in the file: 10.20.0.10 is in use by {instance} and cannot be removed"
    ]
    assert refused("ip,mac,hosts\n10.20.0.50,52:54:00:aa:00:10,h1\n", prune=True)[0].startswith("line 2: MAC")
    assert [r.name for r in pinned.rows() if r.ip == "10.20.0.10"] == ["db-1"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("10.20.1.5,52:54:00:00:00:05,,h1", "10.20.1.5 lies outside 10.20.0.0/24"),
        ("10.20.0.0,52:54:00:00:00:05,,h1", "the network address"),
        ("10.20.0.1,52:54:00:00:00:05,,h1", "the gateway"),
        ("10.20.0.255,52:54:00:00:00:05,,h1", "the broadcast address"),
        ("10.20.0,52:54:00:00:00:05,,h1", "10.20.0 is no IPv4"),
        ("010.20.0.5,52:54:00:00:00:05,,h1", "no IPv4"),
        ("10.20.0.٥,52:54:00:00:00:05,,h1", "no IPv4"),
        ("fe80::1,52:54:00:00:00:05,,h1", "no IPv4"),
        (",52:54:00:00:00:05,,h1", "nothing is no IPv4"),
        ("10.20.0.5,52:54:00:00:00,,h1", "no MAC"),
        ("10.20.0.5,52:54:00:00:00:0g,,h1", "no MAC"),
        ("10.20.0.5,525400000005,,h1", "no MAC"),
        ("10.20.0.5,,,h1", "no MAC"),
        ('10.20.0.5,"52:54:00:00:00:05\n,x",,h1', "no MAC"),
        ("10.20.0.5,00:00:00:00:00:00,,h1", "zero"),
        ("10.20.0.5,01:00:5e:00:00:05,,h1", "of a group"),
        ("10.20.0.5,ff:ff:ff:ff:ff:ff,,h1", "of a group"),
        ("10.20.0.5,52:54:00:00:00:05,-web,h1", "no host name"),
        ("10.20.0.5,52:54:00:00:00:05,web.example,h1", "no host name"),
        ("10.20.0.5,52:54:00:00:00:05,web_1,h1", "no host name"),
        ("10.20.0.5,52:54:00:00:00:05,wéb,h1", "no host name"),
        ('10.20.0.5,52:54:00:00:00:05,"a,set:x",h1', "no host name"),
        ('10.20.0.5,52:54:00:00:00:05,"a\nb",h1', "no host name"),
        (f"10.20.0.5,52:54:00:00:00:05,{'x' * 64},h1", "no host name"),
        ("10.20.0.5,52:54:00:00:00:05,3600,h1", "can be called 3600"),
        ("10.20.0.5,52:54:00:00:00:05,45m,h1", "can be called 45m"),
        ("10.20.0.5,52:54:00:00:00:05,IGNORE,h1", "can be called ignore"),
        ("10.20.0.5,52:54:00:00:00:05,i-0123456789abcdef0,h1", "can be called i-0"),
        ("10.20.0.5,52:54:00:00:00:05,ip-10-20-0-6,h1", "the name of another address"),
        ("10.20.0.5,52:54:00:00:00:05,,", "names no host"),
        ("10.20.0.5,52:54:00:00:00:05,,h1 h9 h8", "there is no host h8, h9"),
        ("10.20.0.5,52:54:00:00:00:05,,h1 " + " ".join(f"x{n}" for n in range(8)), "x0, x1, x2, x3, x4 and 3 more"),
        ("10.20.0.5,52:54:00:00:00:05,,h1,more", "5 columns"),
        ("10.20.0.10,52:54:00:00:00:05,,h1", "IP 10.20.0.10 is in line 2 too"),
        ("10.20.0.5,52:54:00:aa:00:10,,h1", "MAC 52:54:00:aa:00:10 is in line 2 too"),
        ("10.20.0.5,52:54:00:00:00:05,WEB-1,h1", "name web-1 is in line 2 too"),
    ],
)
def test_bad_rows(empty: PinnedSite, row: str, says: str) -> None:
    with pytest.raises(LeasesRefused) as caught:
        empty.take(GOOD + row + "\n")
    assert empty.rows() == []
    (bad,) = map(str, caught.value.fields["rows"])
    assert bad.startswith("line 5: ")
    assert says in bad
    assert bad.isascii()


def test_every_bad_row_is_named_with_all_that_is_wrong(pinned: PinnedSite, refused: Callable[..., list[str]]) -> None:
    rows = [f"10.20.9.{n},00:00:00:00:00:00,-,h9" for n in range(150)]
    bad = refused("ip,mac,name,hosts\n" + "\n".join(rows))
    assert len(bad) == 100
    assert bad[99].startswith("line 101: ")
    for reason in ("outside", "zero", "no host name", "no host h9", "in line 2 too"):
        assert reason in bad[99]
    with pytest.raises(LeasesRefused, match="for 150 rows are bad; the first one is line 2: "):
        pinned.take("ip,mac,name,hosts\n" + "\n".join(rows), prune=True)


@pytest.mark.parametrize("chunk", [1000, 1])
def test_a_mac_of_another_network(
    pinned: PinnedSite, refused: Callable[..., list[str]], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned_leases, "CHUNK", chunk)
    cloud = pinned.cloud.cloud
    other = cloud.write(lambda tx: networks.create_network(tx, None, "db", "10.21.0.0/24", kind=NetworkKind.PINNED).id)
    file = read_leases(b"ip,mac,hosts\n10.21.0.10,52:54:00:bb:00:10,h1\n", LeaseFormat.CSV)
    cloud.write(lambda tx: import_leases(tx, other, file))
    assert refused("ip,mac,hosts\n10.20.0.10,52:54:00:bb:00:10,h1\n10.20.0.11,52:54:00:bb:00:11,h1\n") == [
        "line 2: 52:54:00:bb:00:10 belongs to network 'db'"
    ]


def test_macs_that_pooled_networks_make_and_imported_ones_keep_apart(
    pinned: PinnedSite, refused: Callable[..., list[str]]
) -> None:
    cloud = pinned.cloud.cloud
    pooled = cloud.write(lambda tx: networks.create_network(tx, None, "pool", "10.21.0.0/24"))
    made = f"52:54:00:{pooled.number:02x}:00"
    assert "belongs to network 'pool'" in refused(f"ip,mac,hosts\n10.20.0.10,{made}:10,h1\n")[0]
    pinned.take(f"ip,mac,hosts\n10.20.0.10,52:54:00:{pooled.number + 1:02x}:00:10,h1\n")
    later = cloud.write(lambda tx: networks.create_network(tx, None, "later", "10.22.0.0/24"))
    assert later.number == pooled.number + 2


def test_only_a_pinned_network_has_leases_to_import(pinned: PinnedSite) -> None:
    cloud = pinned.cloud.cloud
    pooled = cloud.write(lambda tx: networks.create_network(tx, None, "pool").id)
    with pytest.raises(InvalidParameter, match="pooled"):
        cloud.write(lambda tx: import_leases(tx, pooled, LeaseFile([])))
    with pytest.raises(InvalidParameter, match="pooled"):
        cloud.read(lambda tx: export_leases(tx, pooled))
    with pytest.raises(NetworkNotFound):
        cloud.write(lambda tx: import_leases(tx, "net-0", LeaseFile([])))


def test_a_network_goes_with_its_leases_and_then_its_hosts_may_go(pinned: PinnedSite) -> None:
    pinned.take(GOOD)
    cloud = pinned.cloud.cloud
    cloud.write(lambda tx: networks.delete_network(tx, pinned.network))
    assert cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(LeasePin))) == 0
    cloud.write(lambda tx: hosts.remove_host(tx, "h2"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PinnedSite]:
    """Of those tests that leave nothing behind."""
    cloud = TestCloud.create(tmp_path_factory.mktemp("empty"))
    yield PinnedSite(cloud)
    cloud.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PinnedSite]:
    cloud = TestCloud.create(tmp_path_factory.mktemp("shared"))
    yield PinnedSite(cloud)
    cloud.close()


_ROWS = st.dictionaries(
    st.integers(2, 254),
    st.tuples(
        st.from_regex(r"([a-hj-z]([a-z0-9-]{0,8}[a-z0-9])?)?", fullmatch=True),
        st.sets(st.sampled_from(["h1", "h2", "h3"]), min_size=1),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_ROWS, form=st.sampled_from(LeaseFormat), shift=st.integers(0, 5))
def test_export_and_import_are_each_others_inverse(
    shared: PinnedSite, rows: dict[int, tuple[str, set[str]]], form: LeaseFormat, shift: int
) -> None:
    """Whatever was imported before, a pruning import leaves exactly the file, and its export changes nothing."""
    names: set[str] = {"ignore", "infinite", "localhost", "deprecated"}
    wanted = []
    for n, (name, pins) in rows.items():
        own = name if name and name not in names and is_dns_label(name) else ""
        names.add(own)
        mac = f"02:00:00:00:{shift:02x}:{(n * 7 + shift) % 256:02x}"
        wanted.append(LeaseRow(0, f"10.20.0.{n}", mac, own, tuple(sorted(pins))))
    wanted.sort(key=lambda r: int(r.ip.rpartition(".")[2]))
    shared.take_file(read_leases(write_leases(wanted, form).encode(), form), prune=True)
    assert shared.rows() == wanted
    exported = read_leases(write_leases(shared.rows(), form).encode(), form)
    assert counts(shared.take_file(exported, prune=True)) == (0, 0, len(wanted), 0)


def test_what_is_claimed_while_the_file_is_looked_at_is_in_use(
    pinned: PinnedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another transaction commits its claim between our first look and our lock."""
    pinned.take(GOOD)
    (instance_id,) = pinned.cloud.launch(1, network_id=pinned.network)
    lock, claims = pinned_leases._lock, [Lease.ip == "10.20.0.10"]

    def late(tx: Transaction, changes: LeaseChanges) -> bool:
        if claims:
            on_h1 = update(Instance).where(Instance.id == instance_id).values(host_id="h1")
            tx.session.execute(on_h1)
            tx.session.execute(update(Lease).where(claims.pop()).values(instance_id=instance_id, released_at=None))
        return lock(tx, changes)

    monkeypatch.setattr(pinned_leases, "_lock", late)
    with pytest.raises(LeasesRefused, match=f"in use by {instance_id} on h1"):
        pinned.take("ip,mac,name,hosts\n10.20.0.10,52:54:00:aa:00:10,web-1,h3\n")

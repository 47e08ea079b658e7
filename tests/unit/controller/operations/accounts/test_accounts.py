"""Projects, users, keys, key pairs, tags, networks: what is kept, what is refused."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from controller.db.models import AccessKey, User
from controller.domain.errors import (
    AlreadyExists,
    AuthenticationFailed,
    CidrOverlaps,
    ConfigurationError,
    InUse,
    InvalidParameter,
    InvalidPublicKey,
    KeyPairExists,
    NotFound,
    TagLimitExceeded,
)
from controller.operations import dead_letters, secrets
from controller.operations.accounts import key_pairs, projects, tags, users
from controller.operations.hosts import hosts
from controller.operations.instances import instance_types
from controller.operations.networks import networks
from tests.labs.cloud import TestCloud


def test_an_access_key_leads_to_its_user_until_it_is_disabled(site: TestCloud) -> None:
    key, secret = site.cloud.write(lambda tx: users.create_access_key(tx, site.user_id))
    principal, found = site.cloud.read(lambda tx: users.find_access_key(tx, key.id))
    assert (principal.user_id, principal.project_id, found) == (site.user_id, site.project_id, secret)
    stored = site.cloud.read(lambda tx: tx.session.get_one(AccessKey, key.id).secret_encrypted)
    assert secret not in stored
    for undo in (
        lambda tx: users.disable_access_key(tx, key.id),
        lambda tx: users.set_enabled(tx, "demo", False),
    ):
        site.cloud.write(undo)
        with pytest.raises(AuthenticationFailed):
            site.cloud.read(lambda tx: users.find_access_key(tx, key.id))


def test_secrets_of_another_key_file_are_not_read(site: TestCloud, tmp_path: Path) -> None:
    other = TestCloud.create(tmp_path / "other")
    text = secrets.encrypt(site.cloud.settings, "hush")
    with pytest.raises(ConfigurationError, match="not the key"):
        secrets.decrypt(other.cloud.settings, text)
    assert site.cloud.settings.secret_key_file.stat().st_mode & 0o777 == 0o600
    other.close()


def test_passwords_and_tokens_are_hashed(site: TestCloud) -> None:
    token = site.cloud.write(lambda tx: users.issue_token(tx, users.get_user(tx, "demo")))
    user = site.cloud.read(lambda tx: tx.session.get_one(User, site.user_id))
    assert secrets.password_matches("a long password", user.password_hash)
    assert not secrets.password_matches("another", user.password_hash)
    assert not secrets.password_matches("x", "")
    assert not secrets.password_matches("x", "$argon2id$v=19$m=1$no hash")
    assert user.token_sha256 == secrets.hash_token(token)
    for name, password in (("demo", "long enough"), ("", "long enough"), ("a:b", "long enough"), ("new", "short")):
        with pytest.raises((AlreadyExists, InvalidParameter)):
            site.cloud.write(lambda tx, n=name, p=password: users.create_user(tx, n, site.project_id, p))  # type: ignore[misc]


@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
def test_a_created_key_pair_is_what_ssh_keygen_reads(site: TestCloud, tmp_path: Path, key_type: str) -> None:
    row, pem = key_pairs.create_key_pair(site.cloud, site.project_id, "k", key_type)
    file = tmp_path / "k.pem"
    file.write_text(pem)
    file.chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == row.public_key.split()[:2]
    with pytest.raises(KeyPairExists):
        site.cloud.write(lambda tx: key_pairs.import_key_pair(tx, site.project_id, "k", row.public_key.encode()))


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"nonsense",
        b"ssh-rsa notbase64!",
        b"ssh-ed25519 AAAA",
        b"ssh-dss AAAAB3NzaC1kc3MAAACB",
        b"\xff\xfe",
        b'command="rm -rf /" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q',
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9q x\nssh-rsa AAAA",
        b"ssh-rsa " + b"A" * 20000,
    ],
)
def test_no_line_that_is_not_a_plain_key_reaches_authorized_keys(site: TestCloud, key: bytes) -> None:
    with pytest.raises(InvalidPublicKey):
        site.cloud.write(lambda tx: key_pairs.import_key_pair(tx, site.project_id, "bad", key))


def test_tags_have_limits_and_owners(site: TestCloud) -> None:
    (one,) = site.launch(1)
    mine = site.project_id
    site.cloud.write(lambda tx: tags.create_tags(tx, mine, [one], {f"k{n}": "v" for n in range(50)}))
    with pytest.raises(TagLimitExceeded):
        site.cloud.write(lambda tx: tags.create_tags(tx, mine, [one], {"one more": "v"}))
    with pytest.raises(NotFound):
        site.cloud.write(lambda tx: tags.create_tags(tx, "210987654321", [one], {"k": "v"}))
    with pytest.raises(NotFound):
        site.cloud.write(lambda tx: tags.create_tags(tx, mine, [one, "vol-0"], {"k0": "changed"}))
    site.cloud.write(lambda tx: tags.delete_tags(tx, mine, [one], [("k0", "other"), ("k1", "v"), ("k2", None)]))
    left = {t.key for t in site.cloud.read(lambda tx: tags.list_tags(tx, mine))}
    assert left == {f"k{n}" for n in range(50)} - {"k1", "k2"}
    site.cloud.write(lambda tx: tags.delete_tags(tx, mine, [one], []))
    assert site.cloud.read(lambda tx: tags.list_tags(tx, mine)) == []


def test_networks_never_overlap(site: TestCloud) -> None:
    create = networks.create_network
    site.cloud.write(lambda tx: create(tx, None, "a", "10.1.0.0/24"))
    for cidr in ("10.1.0.0/24", "10.1.0.128/25", "10.1.0.0/16", "10.0.0.0/8"):
        with pytest.raises((CidrOverlaps, InvalidParameter)):
            site.cloud.write(lambda tx, c=cidr: create(tx, None, "b", c))  # type: ignore[misc]
    for cidr in (
        "10.2.0.1/24",
        "fe80::/64",
        "rubbish",
        "127.0.0.0/24",
        "224.0.0.0/24",
        "169.254.0.0/16",
        "10.2.0.0/30",
    ):
        with pytest.raises(InvalidParameter):
            site.cloud.write(lambda tx, c=cidr: create(tx, None, "b", c))  # type: ignore[misc]
    with pytest.raises(AlreadyExists):
        site.cloud.write(lambda tx: create(tx, None, "c", "10.3.0.0/24", vlan=100))
    assert [n.name for n in site.cloud.read(networks.list_networks)] == ["a"]


def test_a_network_in_use_stays(site: TestCloud) -> None:
    site.launch(1)
    (network,) = site.cloud.read(networks.list_networks)
    with pytest.raises(InUse):
        site.cloud.write(lambda tx: networks.delete_network(tx, network.id))
    free = site.cloud.write(lambda tx: networks.create_network(tx, None, "free"))
    site.cloud.write(lambda tx: networks.delete_network(tx, free.id))
    assert len(site.cloud.read(networks.list_networks)) == 1


def test_a_host_that_carries_something_is_not_removed(site: TestCloud) -> None:
    site.heartbeat("h2")
    site.cloud.write(lambda tx: hosts.remove_host(tx, "h2"))
    assert [h.id for h in site.cloud.read(hosts.list_hosts)] == ["h1"]


def test_quotas_are_not_negative(site: TestCloud) -> None:
    with pytest.raises(InvalidParameter):
        site.cloud.write(lambda tx: projects.set_quota(tx, "demo", vcpus=-1))


def test_the_database_of_another_cloud_is_refused(site: TestCloud, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is cloud c10dc10d's"):
        TestCloud.create(tmp_path, site.cloud.settings.database_url, DEFAULT__cloud_id="0badc10d")


def test_dead_letters_are_kept_and_thrown_away(site: TestCloud) -> None:
    site.cloud.write(lambda tx: dead_letters.record_dead_letter(tx, b"\xff{}", "schedule", "unreadable"))
    (letter,) = site.cloud.read(dead_letters.list_dead_letters)
    assert (letter.queue, letter.reason) == ("schedule", "unreadable")
    site.cloud.write(lambda tx: dead_letters.replay(tx, [letter.id]))
    assert [r.id for r in site.cloud.read(dead_letters.to_replay)] == [letter.id]
    site.cloud.write(lambda tx: dead_letters.discard(tx, [letter.id]))
    with pytest.raises(NotFound):
        site.cloud.write(lambda tx: dead_letters.replay(tx, [letter.id]))


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "\x1b[2J"])
def test_a_name_can_be_shown(site: TestCloud, name: str) -> None:
    with pytest.raises(InvalidParameter, match="printable"):
        site.cloud.write(lambda tx: projects.create_project(tx, name))
    with pytest.raises(InvalidParameter, match="printable"):
        site.cloud.write(lambda tx: users.create_user(tx, name, site.project_id, "long enough"))


def test_a_project_is_not_called_as_another_is_numbered(site: TestCloud) -> None:
    with pytest.raises(InvalidParameter, match="account number"):
        site.cloud.write(lambda tx: projects.create_project(tx, site.project_id))


@pytest.mark.parametrize("quota", ["instances", "vcpus", "memory_mib"])
def test_a_quota_fits_its_column(site: TestCloud, quota: str) -> None:
    for value in (-1, 2**31):
        with pytest.raises(InvalidParameter, match="between 0 and 2147483647"):
            site.cloud.write(lambda tx, v=value: projects.set_quota(tx, site.project_id, **{quota: v}))  # type: ignore[misc]
    site.cloud.write(lambda tx: projects.set_quota(tx, site.project_id, **{quota: 2**31 - 1}))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("", (1, 1, 1)),
        ("a b", (1, 1, 1)),
        ("x" * 65, (1, 1, 1)),
        ("x.one", (0, 1, 1)),
        ("x.one", (16_385, 1, 1)),
        ("x.one", (1, 2**31, 1)),
        ("x.one", (1, 1, 2**31)),
    ],
)
def test_an_instance_type_that_no_host_can_hold(site: TestCloud, name: str, size: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidParameter):
        site.cloud.write(lambda tx: instance_types.add_type(tx, name, *size))


def test_password_of_release_0_1_matches() -> None:
    salt, parameters = bytes(16), {"n": 2**14, "r": 8, "p": 1}
    stored = f"scrypt${salt.hex()}${hashlib.scrypt(b'a long password', salt=salt, **parameters).hex()}"
    assert secrets.password_matches("a long password", stored)
    assert not secrets.password_matches("another", stored)

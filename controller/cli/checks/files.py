"""What lies on this machine: configuration, key, folders; and what the kernel lets a process open."""

import os
import resource
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from controller.cli.checks.item import Item, Status, Subject, fail, ok, warn
from controller.conf.load import unknown_options
from controller.domain.errors import CloudError
from controller.limits import check_pool, database_threads, missing_files, open_files
from controller.operations import secrets

_GIB = 1024**3
_LOW_GIB = 5


def options(subject: Subject) -> Sequence[Item]:
    """Whatever the file sets is an option that there is."""
    assert subject.file is not None
    if unknown := sorted(unknown_options(subject.file)):
        advice = "nothing reads it: a slip of the pen? etc/pileus.conf.sample has every option"
        return [warn("options", f"{subject.file} sets {', '.join(unknown)}", advice)]
    return [ok("options", f"{subject.file} sets only what there is")]


def key_file(subject: Subject) -> Sequence[Item]:
    """The key for secrets at rest is there, for its owner and at most the group of the services."""
    path = subject.settings.secret_key_file
    try:
        secrets.derived_key(subject.settings, "check")
    except CloudError as error:
        advice = "copy it from the machine where the cloud was set up, for the user that the services run as"
        return [fail("secret key file", str(error).rstrip("."), advice)]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o037:  # a group may read it: that of the services
        advice = f"chmod g-wx,o-rwx {path}, if no stranger has read it: it cannot be changed"
        return [fail("secret key file", f"{path} has mode {mode:04o}", advice)]
    return [ok("secret key file", f"{path}, mode {mode:04o}")]


def state_dir(subject: Subject) -> Sequence[Item]:
    """The folder of the cloud is there, can be written by services that keep something in it, and by no other user."""
    path = subject.settings.state_dir
    item = _folder("state folder", path, "[DEFAULT] state_dir")
    writers = subject.settings.embedded_bus or {"network", "compute"} & set(subject.services)
    readable = os.access(path, os.R_OK | os.X_OK) and not os.access(path, os.W_OK)
    if item.status is Status.FAIL and not writers and readable and path.stat().st_uid == 0:
        return [ok("state folder", f"{path}, root's; these services only read there")]
    return [item]


def image_store(subject: Subject) -> Sequence[Item]:
    """The folder of the images is there and has room."""
    path = subject.settings.image_store
    if not path.exists() and os.access(path.parent, os.W_OK):
        return [ok("image store", f"{path} will be made by the first image")]
    item = _folder("image store", path, "[images] store; several APIs need one shared folder")
    if item.status is not Status.OK:
        return [item]
    free_gib = shutil.disk_usage(path).free / _GIB
    seen = f"{path}, {free_gib:.0f} GiB free"
    if free_gib < _LOW_GIB:
        return [warn("image store", seen, "an image may not fit: make room")]
    return [ok("image store", seen)]


def pool(subject: Subject) -> Sequence[Item]:
    """Each process here has a connection for each of its threads."""
    conf = subject.settings.database
    threads = {
        names: sum(database_threads(n, subject.settings) for n in names) for names in map(tuple, _processes(subject))
    }
    most = max(threads, key=lambda names: threads[names])
    try:
        check_pool(most, subject.settings)
    except CloudError as error:
        return [fail("connection pool", str(error).rstrip("."), "change [database]")]
    return [
        ok("connection pool", f"{conf.pool_size} + {conf.max_overflow} connections, {threads[most]} needed at most")
    ]


def file_limit(subject: Subject) -> Sequence[Item]:
    """A process that is started as this one was may open as many files as it may need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needs = [open_files(names, subject.settings) for names in _processes(subject)]
    most = max(needs, key=lambda n: sum(n.values()))
    if missing := missing_files(most, hard):
        return [fail("open files", missing, "`systemctl show -p LimitNOFILE UNIT` says what a unit has")]
    limit = "any number" if hard == resource.RLIM_INFINITY else hard
    return [ok("open files", f"{sum(most.values())} needed at most by one process, {limit} allowed")]


def _processes(subject: Subject) -> list[Sequence[str]]:
    """With the embedded bus all services are one process."""
    return [subject.services] if subject.settings.embedded_bus else [[n] for n in subject.services]


def _folder(name: str, path: Path, option: str) -> Item:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return fail(name, f"{path}: {error.strerror}", f"see {option}")
    if not path.is_dir():
        return fail(name, f"{path} is no folder", f"see {option}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return fail(name, f"{path} cannot be written by this user", "give it to the user that the services run as")
    if mode & 0o002:
        return fail(name, f"{path} can be written by anybody (mode {mode:04o})", f"chmod o-w {path}")
    return ok(name, f"{path}, mode {mode:04o}")

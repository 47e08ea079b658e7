"""A general-purpose cloud image, as one would download it: systemd, cloud-init and OpenSSH of Debian's packages.

Nothing in it is told where its metadata is: there is only the configuration that the packages bring along.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.labs.servers.guarded import find_program

RELEASE = "bookworm"
LOGIN = "debian"  # cloud-init's default user
_SIZE = "1500M"
_PACKAGES = (
    "linux-image-cloud-amd64 initramfs-tools zstd extlinux systemd-sysv udev dbus netbase iproute2 ifupdown "
    "isc-dhcp-client cloud-init cloud-guest-utils e2fsprogs openssh-server sudo locales procps ca-certificates"
)
_BOOT = """\
SERIAL 0 115200
DEFAULT linux
PROMPT 0
TIMEOUT 0
LABEL linux
LINUX /vmlinuz
INITRD /initrd.img
APPEND root=/dev/vda ro console=ttyS0 quiet
"""
# What makes a copy of one machine an image: nothing in it belongs to that machine.
_OWN = ("etc/hostname", "etc/ssh/ssh_host_*", "var/lib/apt/lists/*", "var/cache/apt/*.bin", "var/cache/apt/archives/*")


def cached_image() -> Path:
    """The image as qcow2; made when it is not in the cache, which takes about a minute and a half."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pileus"
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"general-{key}.qcow2"
    with image.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            with tempfile.TemporaryDirectory(prefix="pileus-general-image.", dir="/var/tmp") as work:
                made = _make(Path(work))
                unfinished = image.with_suffix(".new")
                shutil.move(made, unfinished)
                unfinished.rename(image)
    return image


def _make(work: Path) -> Path:
    tree, raw, qcow2 = work / "tree", work / "disk.raw", work / "disk.qcow2"
    _make_tree(tree)
    _run("truncate", f"--size={_SIZE}", str(raw))
    # No partitions: the boot loader takes the disk as it is. It reads no 64bit file system.
    features = ["-O", "^64bit,^metadata_csum", "-b", "4096", "-L", "root", "-d", str(tree)]
    _run(find_program("mke2fs", package="e2fsprogs"), "-q", "-F", "-t", "ext4", *features, str(raw))
    # In a mount namespace of its own: whatever ends this ends the mount and the loop device.
    install = 'mount -o loop "$1" "$2"; "$3" --install "$2/boot/extlinux"; umount "$2"'
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", install, "sh"]
    mount = work / "mount"
    mount.mkdir()
    _run(*inside, str(raw), str(mount), str(tree / "usr/bin/extlinux"))
    _run(find_program("qemu-img", package="qemu-utils"), "convert", "-O", "qcow2", "-f", "raw", str(raw), str(qcow2))
    return qcow2


def _make_tree(tree: Path) -> None:
    program = find_program("mmdebstrap", package="mmdebstrap")
    find_program("apt-get", package="apt")
    argv = [program, "--mode=root", "--variant=minbase", "--format=directory", f"--include={_PACKAGES}"]
    argv += ["--aptopt=Apt::Install-Recommends false", "--dpkgopt=path-exclude=/usr/share/man/*"]
    argv += ["--dpkgopt=path-exclude=/usr/share/doc/*", RELEASE, str(tree)]
    _run(*argv, timeout_s=600)
    (tree / "boot/extlinux").mkdir()
    (tree / "boot/extlinux/extlinux.conf").write_text(_BOOT)
    (tree / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (tree / "etc/machine-id").write_text("")
    # What an installation of `locales` answers by default; without it cloud-init wants one that was never made.
    (tree / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    for pattern in _OWN:
        for path in tree.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _run(*argv: str, timeout_s: float = 120) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-1000:]}{done.stderr[-3000:]}"

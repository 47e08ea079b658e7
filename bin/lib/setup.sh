# shellcheck shell=bash
# What quickstart and test install, and how. Sourced; sets $checkout.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# Debian packages, installed without their recommendations: what is needed is named.
# shellcheck disable=SC2034 # the scripts that source this use them
host_packages=(
    gcc libc6-dev python3-dev pkg-config libvirt-dev  # libvirt-python is built against them
    libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils tini
    iproute2 kmod procps
)
network_packages=(dnsmasq-base nftables iproute2 kmod procps)
# shellcheck disable=SC2034
cloud_packages=(
    python3 python3-venv
    "${host_packages[@]}" "${network_packages[@]}"
    openssh-client iputils-ping
    apt e2fsprogs mount util-linux gzip  # the demo image is made with them
)
# shellcheck disable=SC2034
test_packages=(
    rabbitmq-server postgresql mariadb-server
    mmdebstrap  # a general cloud image is made with it
)
# shellcheck disable=SC2034
soak_packages=(systemd-container slirp4netns)  # machines with a systemd of their own, and their way to the packages
# A DHCP client, a resolver and an HTTP client in network namespaces. Debian's other busybox does as well, and one
# package would push the other out.
command -v busybox >/dev/null || test_packages+=(busybox-static)

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The folder of the cloud if none is named: the same rule as in `pileus`.
default_state() {
    if [ -n "${PILEUS_STATE:-}" ]; then
        say "$PILEUS_STATE"
    elif [ "$(id -u)" = 0 ]; then
        say /var/lib/pileus
    else
        say "${XDG_STATE_HOME:-$HOME/.local/state}/pileus"
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || say "$package"
    done
}

# While packages are being installed, none of them starts a server: policy-rc.d is what Debian asks first. One that is
# there already stays. The last line marks ours, should a kill have left it behind.
guard=/usr/sbin/policy-rc.d
guard_mark='# pileus: for the time of an installation'

start_no_servers() {
    if [ -e "$guard" ] && ! grep -qxF "$guard_mark" "$guard"; then
        return
    fi
    printf '#!/bin/sh\nexit 101\n%s\n' "$guard_mark" >"$guard"
    chmod 755 "$guard"
}

servers_as_before() {
    if [ -e "$guard" ] && grep -qxF "$guard_mark" "$guard"; then
        rm -f "$guard"
    fi
}

# install_packages NAME...: those that are missing.
install_packages() {
    local missing status=0
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    start_no_servers
    apt-get update -q </dev/null || say 'the package lists could not be refreshed: going on with the old ones'
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 \
        "${missing[@]}" </dev/null || status=$?
    servers_as_before
    return "$status"
}

# A Python 3.11 that can make virtual environments; the locks are made for it.
find_python() {
    local candidate
    for candidate in "${PILEUS_PYTHON:-}" /usr/bin/python3.11 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$candidate cannot make virtual environments: apt-get install python3-venv"
            command -v "$candidate"
            return
        fi
    done
    fail 'Python 3.11 is missing: apt-get install python3 python3-venv'
}

# venv_key LOCK: what a virtual environment is made of; it is renewed when this changes.
venv_key() {
    { cat "$1" "$checkout/setup.cfg" "$checkout/pyproject.toml"; say "$checkout"; } | sha256sum | cut -d ' ' -f 1
}

# make_venv FOLDER LOCK: the locked packages and this checkout; nothing to do when it is there already.
make_venv() {
    local venv=$1 lock=$2 key python
    key=$(venv_key "$lock")
    if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/pileus.key" 2>/dev/null)" = "$key" ]; then
        return
    fi
    [ -w "$checkout" ] || fail "$checkout is not writable for $(id -un): pip installs the checkout in place"
    python=$(find_python)
    # One that was interrupted is begun anew.
    if [ -e "$venv/pileus.unfinished" ]; then
        rm -rf "$venv"
    fi
    mkdir -p "$venv"
    touch "$venv/pileus.unfinished"
    rm -f "$venv/pileus.key"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes -r "$lock" </dev/null
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --no-build-isolation \
        -e "$checkout" </dev/null
    say "$key" >"$venv/pileus.key"
    rm -f "$venv/pileus.unfinished"
}

# make_test_venv FOLDER: what tests and benchmarks run in. libvirt-python has no wheels; without the headers the tests
# that need it say so.
make_test_venv() {
    local venv=$1 whole=$checkout/requirements/test.lock lock
    lock=$whole
    if ! { pkg-config --exists libvirt && command -v gcc && [ -e /usr/include/python3.11/Python.h ]; } >/dev/null 2>&1; then
        say 'libvirt-dev, gcc or python3-dev is not installed: going on without libvirt-python'
        lock=$(mktemp)
        awk '/^[^ #]/ { skip = /^libvirt-python==/ } !skip' "$whole" >"$lock"
    fi
    make_venv "$venv" "$lock"
    [ "$lock" = "$whole" ] || rm -f "$lock"
}

# in_use VENV: whether a process runs that was started from it.
in_use() {
    # By standard input: on grep's own command line it would be found.
    grep -qsFf - /proc/[0-9]*/cmdline <<<"$1/bin/" || return 1  # 2 where a process ended while it was looked at
}

# shadowed_units UNITS ADMINISTRATOR: what lies in the administrator's folder under the name of one of our units, or of a
# file of their drop-ins. systemd takes it instead of ours.
shadowed_units() {
    local file
    (cd "$1" && find . -type f -path './pileus*' | sort) | while read -r file; do
        if [ -e "$2/${file#./}" ]; then
            say "$2/${file#./}"
        fi
    done
}

# remove_others PREFIX NEW BEFORE: the releases below PREFIX- go, but for these two and what a process still runs from.
# Where both are one, it is installed once more, and what was before it is to stay. Only what has a release's key in its
# name is one: /opt/pileus-backups is not.
remove_others() {
    local folder
    [ "$2" != "$3" ] || return 0
    for folder in "$1"-*; do
        [[ ${folder#"$1-"} =~ ^[0-9a-f]{12}$ ]] || continue
        case $folder in "$2" | "$3") ;; *) in_use "$folder" || rm -rf "$folder" ;; esac
    done
}

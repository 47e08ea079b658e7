# shellcheck shell=bash
# What bin/demo-image and bin/tiny-image share: a bootable qcow2 with the userland of etc/demo-image/, made of Debian
# packages alone. Sourced; the script that does has set
#
#   image      its name: IMAGE-KEY.qcow2 in the cache, label of the file system
#   size       of the file system; the guest grows it to the disk's size
#   features   of the file system, beside those that the boot loader needs
#   inputs     the files that the image is made of, beside packages
#   programs   that its functions run
#   variable   of the environment, naming a finished image to take instead
#
# and has defined
#
#   kernel_packages   prints the packages, to be fetched and unpacked, that its kernel comes from
#   kernel_identity   prints what else tells one kernel from another
#   add_kernel        puts kernel and extlinux.conf below $work/root/boot
#
# and then calls main. $work is the folder of one build, $work/unpacked has the packages.
set -Eeuo pipefail
export LC_ALL=C
umask 022

self=$(readlink -f "$0")
library=$(readlink -f "${BASH_SOURCE[0]}")
etc=$(readlink -f "$(dirname "$self")/../etc")
guest=$etc/demo-image
cached=${XDG_CACHE_HOME:-$HOME/.cache}/pileus

say() { echo "$image-image: $*" >&2; }
fail() { say "$*"; exit 1; }
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$self" | sed '/^set /,$d' >&2; exit "$1"; }

out='' cache=no work='' temporary=()
while [ $# -gt 0 ]; do
    case $1 in
    --cache) cache=yes ;;
    --work) [ $# -ge 2 ] || usage 2; work=$2; shift ;;
    -h | --help) usage 0 ;;
    -*) say "unknown option $1"; usage 2 ;;
    *) [ -z "$out" ] || usage 2; out=$1 ;;
    esac
    shift
done
case $cache:${out:+out} in yes: | no:out) ;; *) usage 2 ;; esac

cleanup() { [ ${#temporary[@]} -eq 0 ] || rm -rf "${temporary[@]}"; }
trap cleanup EXIT
trap 'say "failed in line $LINENO: ${BASH_COMMAND:0:80}"' ERR
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The lines of a list below etc/demo-image, without comments.
list() { sed 's/#.*//; /^[[:space:]]*$/d' "$guest/$1"; }

# fields NAME PACKAGE...: a line "package value" for each, of the version that apt would fetch.
fields() {
    local name=$1
    shift
    apt-cache show --no-all-versions "$@" 2>/dev/null |
        awk -v name="$name:" '$1 == "Package:" { package = $2 }
            $1 == name && !(package in seen) { seen[package]; $1 = package; print }'
}

update_lists() {
    say 'refreshing the package lists'
    apt-get update -q >&2 || say 'the package lists could not be refreshed: going on with the old ones'
}

# Sets packages and checksums.
resolve_packages() {
    local of_kernel
    of_kernel=$(kernel_packages) || { say 'the package lists have no kernel'; return 1; }
    mapfile -t packages < <(printf '%s' "${of_kernel:+$of_kernel$'\n'}"; list packages)
    checksums=$(checksums_of "${packages[@]}")
}

# checksums_of PACKAGE...: a line "package sha256" for each; fails where the lists lack one.
checksums_of() {
    local found package
    found=$(fields SHA256 "$@")
    for package in "$@"; do
        grep -q "^$package " <<<"$found" || { say "the package lists have no $package"; return 1; }
    done
    sort <<<"$found"
}

cache_key() {
    {
        echo "$checksums"
        kernel_identity
        (cd "$etc" && find "${inputs[@]}" -type f | sort | xargs sha256sum)
        cat "$library" "$self"
    } | sha256sum | cut -c 1-16
}

# fetch PACKAGE...: into $work/packages. Lists that are older than the archive name files that are gone.
fetch() {
    mkdir -p "$work/packages"
    (
        cd "$work/packages"
        download() { apt-get download -q -o APT::Sandbox::User=root "$@" >&2; }
        download "$@" || { update_lists; download "$@"; }
    )
}

# unpack FOLDER PACKAGE...
unpack() {
    local folder=$1 package files
    shift
    mkdir -p "$folder"
    for package in "$@"; do
        files=("$work/packages/${package}_"*.deb)
        [ ${#files[@]} -eq 1 ] || rm -f "${files[@]}"  # of an earlier build
        [ -e "${files[0]}" ] || { fetch "$@"; files=("$work/packages/${package}_"*.deb); }
        dpkg -x "${files[0]}" "$folder"
    done
}

make_root() {
    local root=$work/root unpacked=$work/unpacked name
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,lib,lib64,usr,dev,proc,sys,run,tmp,newroot,boot/extlinux} \
        "$root"/{etc/dropbear,etc/acpi/PWRF,root/.ssh,var/lib/pileus,var/log}
    ln -s ../bin ../sbin ../lib "$root/usr/"
    chmod 1777 "$root/tmp"
    chmod 700 "$root/root" "$root/root/.ssh" "$root/var/lib/pileus"
    cp "$unpacked/bin/busybox" "$root/bin/"
    for name in $("$unpacked/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$root/bin/$name"
    done
    for name in init udhcpc acpid poweroff reboot halt; do
        ln -s ../bin/busybox "$root/sbin/$name"
    done
    cp "$unpacked/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$root/lib64/"
    for name in $(list programs); do
        cp "$unpacked/$name" "$root/sbin/"
        add_libraries "$unpacked/$name"
    done

    cp "$guest"/{inittab,rcS,udhcpc.sh,rc.ssh,rc.meta,metadata-token} "$root/etc/"
    cp "$guest/acpi-power-off" "$root/etc/acpi/PWRF/00000080"  # the name busybox's acpid looks for
    cp "$guest/bash" "$root/bin/bash"
    add_kernel
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:*:19000:0:99999:7:::' >"$root/etc/shadow"  # no password: none fits
    chmod 600 "$root/etc/shadow"
    echo 'root:x:0:' >"$root/etc/group"
    echo /bin/sh >"$root/etc/shells"
    echo "$image" >"$root/etc/hostname"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    ln -s /run/resolv.conf "$root/etc/resolv.conf"
}

# The shared libraries of a program, all from the unpacked packages.
add_libraries() {
    local libraries=$work/unpacked/lib/x86_64-linux-gnu name file
    while read -r name _ file _; do
        case $name in linux-vdso* | /*) continue ;; esac
        case $file in "$work"/*) ;; *) fail "no package in the list has $name, which ${1##*/} needs" ;; esac
        cp -L "$file" "$work/root/lib/$name"
    done < <("$libraries/ld-linux-x86-64.so.2" --list \
        --library-path "$libraries:$work/unpacked/usr/lib/x86_64-linux-gnu" "$1" || true)
}

make_disk() {
    local raw=$work/disk.raw
    rm -f "$raw"
    truncate -s "$size" "$raw"
    # No partition table: the boot loader takes the disk as it is, and growing needs no partition tool.
    # syslinux reads no 64bit file system and none of 1 KiB blocks; few inodes make a large disk cheap.
    mke2fs -q -F -t ext4 -O "^64bit,^metadata_csum,uninit_bg,resize_inode,$features" -b 4096 -i 65536 -m 0 \
        -L "pileus-$image" -d "$work/root" "$raw"
    mkdir -p "$work/mount"
    # In a mount namespace of its own: whatever ends this script ends the mount and the loop device.
    # shellcheck disable=SC2016 # the inner shell expands these
    unshare --mount --propagation private sh -eu -c '
        mount -o loop "$1" "$2"
        "$3" --install "$2/boot/extlinux" >&2
        umount "$2"' sh "$raw" "$work/mount" "$work/unpacked/usr/bin/extlinux"
    qemu-img convert -c -f raw -O qcow2 "$raw" "$1"
}

# build OUT: there when it is finished, never half.
build() {
    [ "$(id -u)" = 0 ] || fail 'root is needed for the loop mount that installs the boot loader'
    if [ -z "$work" ]; then
        work=$(mktemp -d -t pileus-$image-image.XXXXXX)
        temporary+=("$work")
    else
        mkdir -p "$work"
        work=$(readlink -f "$work")
        temporary+=("$work"/{root,initrd,disk.raw,mount,unpacked,kernel})
    fi
    local new
    new=$(mktemp "$1.XXXXXX")
    temporary+=("$new")
    say "building $1"
    rm -rf "$work/unpacked"
    unpack "$work/unpacked" "${packages[@]}"
    make_root
    make_disk "$new"
    chmod 644 "$new"
    mv "$new" "$1"
    say "built: $(($(stat -c %s "$1") / 1024)) KiB"
}

# In a function: bash reads a script while it runs it, so that an edit in between would show.
main() {
    local named=${!variable:-}
    if [ $cache = yes ] && [ -n "$named" ]; then
        [ -f "$named" ] || fail "$variable names $named, which is no file"
        readlink -f "$named"
        return
    fi
    [ "$(dpkg --print-architecture)" = amd64 ] || fail 'the image is made of amd64 packages on amd64 only'
    local program lock
    for program in apt-get dpkg mke2fs mount unshare qemu-img "${programs[@]}"; do
        command -v "$program" >/dev/null || fail "$program is missing (see the packages in this script's head)"
    done
    resolve_packages || { update_lists; resolve_packages; } || fail 'the packages cannot be resolved'

    if [ $cache = yes ]; then
        out=$cached/$image-$(cache_key).qcow2
        mkdir -p "$cached"
        exec {lock}>"${out%.qcow2}.lock"
        flock "$lock"  # one builds, the others wait and take it
        [ -s "$out" ] || build "$out"
    else
        [ -d "$(dirname "$out")" ] || fail "no folder $(dirname "$out")"
        build "$out"
    fi
    readlink -f "$out"
}

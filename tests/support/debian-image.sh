#!/usr/bin/env bash
# Prints the name of a docker image in which the machine's own Debian boots: systemd as PID 1, a docker engine,
# etcd. Makes it if the engine does not have it yet: no image can be pulled where these tests run.
set -euo pipefail

docker=/usr/bin/docker
[ -x "$docker" ] || docker=docker
command -v debootstrap >/dev/null || { echo "error: debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }
# shellcheck source=/dev/null
. /etc/os-release
packages=systemd,systemd-sysv,dbus,docker.io,etcd-server,etcd-client,iproute2,ca-certificates

# Another recipe is another image.
recipe=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)
image=crate-discovery-test/debian:${VERSION_CODENAME}-$recipe

# One at a time: whoever waited finds it made.
exec 9>"/tmp/crate-discovery-test-image.lock"
flock 9
if ! "$docker" image inspect "$image" >/dev/null 2>&1; then
    scratch=$(mktemp -d)
    trap 'rm -rf --one-file-system "$scratch"' EXIT
    # Where this machine takes its packages from. One of the two places mostly is not there.
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        sed -nE 's/^(URIs:|deb( \[[^]]*\])?) *(https?:[^ ]+).*/\3/p' | head -n 1) || true
    debootstrap --variant=minbase --include="$packages" "$VERSION_CODENAME" "$scratch/root" \
        "${mirror:-http://deb.debian.org/debian}" >"$scratch/log" 2>&1 || {
        tail -n 20 "$scratch/log" >&2
        echo "error: debootstrap failed: its last lines are above" >&2
        exit 1
    }
    rm -rf "$scratch"/root/{var/cache/apt,var/lib/apt/lists,usr/share/doc,usr/share/man,usr/share/locale}
    # The tests bring a docker client that notes its calls and hands them to the real one.
    mv "$scratch/root/usr/bin/docker" "$scratch/root/usr/bin/docker.real"
    # Whoever wants an etcd in there starts it.
    rm -f "$scratch/root/etc/systemd/system/multi-user.target.wants/etcd.service"
    tar -C "$scratch/root" -c . | "$docker" import - "$image" >/dev/null
fi
echo "$image"

#!/usr/bin/env bash
# Prints the name of a docker image with this machine's Rust toolchain, for BUILDER= of docker/Dockerfile; makes it if
# the engine does not have it yet. For machines that reach no registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

docker=/usr/bin/docker
[ -x "$docker" ] || docker=docker
debian=$(./debian-image.sh)
roots=/etc/ssl/certs/ca-certificates.crt
sysroot=$(rustc --print sysroot)
recipe=$( (cat "${BASH_SOURCE[0]##*/}" "$roots" && rustc -vV && echo "$debian") | sha256sum | cut -c1-12)
image=crate-discovery-test/builder:$recipe

exec 9>"/tmp/crate-discovery-test-image.lock"
flock 9
if ! "$docker" image inspect "$image" >/dev/null 2>&1; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    # Only what builds: no documentation, no other tool's share.
    mkdir "$scratch/toolchain"
    tar -C "$sysroot" --exclude=./share --exclude=./lib/rustlib/src -c . | tar -C "$scratch/toolchain" -x
    # What this machine trusts, which may be more than Debian does.
    cp "$roots" "$scratch/roots.crt"
    printf '%s\n' \
        "FROM $debian" \
        'RUN apt-get -q update && apt-get -q install -y --no-install-recommends gcc libc6-dev protobuf-compiler libprotobuf-dev' \
        'COPY toolchain /usr/local/' \
        "COPY roots.crt $roots" >"$scratch/Dockerfile"
    DOCKER_BUILDKIT=1 "$docker" build --network host --tag "$image" "$scratch" >&2
fi
echo "$image"

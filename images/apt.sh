#!/bin/sh
# Install Debian packages from the base image's own sources and leave nothing else behind.
# Usage: apt.sh PACKAGE...    A CA bundle in /run/secrets/ca is trusted for sources behind TLS.
# SNAPSHOT (20261120T000000Z): the packages of that moment, from https://snapshot.debian.org instead.
set -eu
export DEBIAN_FRONTEND=noninteractive
snapshot=
if [ -n "${SNAPSHOT:-}" ]; then
    snapshot=/tmp/snapshot.list
    archive=http://snapshot.debian.org/archive
    for line in "debian/$SNAPSHOT bookworm" "debian/$SNAPSHOT bookworm-updates" \
        "debian-security/$SNAPSHOT bookworm-security"; do
        echo "deb [check-valid-until=no] $archive/$line main"
    done > $snapshot
fi
apt() {
    program=$1
    shift
    if [ -s /run/secrets/ca ]; then
        set -- -o Acquire::https::CAInfo=/run/secrets/ca "$@"
    fi
    if [ -n "$snapshot" ]; then
        set -- -o Dir::Etc::sourcelist=$snapshot -o Dir::Etc::sourceparts=- "$@"
    fi
    "$program" -q -o Dpkg::Use-Pty=0 "$@"
}
# What installing leaves behind and nobody reads. Files of the base image are emptied and not deleted: what says that
# a file is gone carries the time of day.
leftovers() {
    find /var/lib/apt/lists /var/cache/apt /var/cache/ldconfig /var/cache/debconf /var/lib/dpkg /var/log \
        /usr/share/man /usr/share/info /usr/share/lintian /usr/share/doc -type f \
        ! \( -path '/usr/share/doc/*/copyright' -o -path '/var/lib/dpkg/*' ! -name '*-old' \
            -o -path '/var/cache/debconf/*' ! -name '*-old' \) 2>/dev/null | sort
}
stamp=$(mktemp) base=$(mktemp)
leftovers > "$base"
apt apt-get update
apt apt-get install --yes --no-install-recommends "$@"
# What the archive promises of every package that is installed, those of the base image too, where it still has them.
mkdir -p /opt/nim/etc
installed=$(dpkg-query -W -f '${binary:Package}=${Version}\n')
{ apt apt-cache show $installed || true; } 2>/dev/null | awk '
    /^Package: / { name = $2 } /^Version: / { version = $2 } /^Architecture: / { arch = $2 }
    /^SHA256: / { print name, version, arch, $2 }' | sort -u > /opt/nim/etc/debs.txt
apt apt-get clean
leftovers | comm -23 - "$base" | xargs -r -d '\n' rm -f
leftovers | while read -r file; do
    if [ "$file" -nt "$stamp" ]; then : > "$file"; fi
done
find /usr/share/doc -mindepth 1 -type d -empty -cnewer "$stamp" -delete
# Debian compiles when it installs, with the times of files in the bytecode.
find /usr/lib/python3* -name '*.pyc' -cnewer "$stamp" -delete
rm -f "$stamp" "$base" $snapshot

#!/bin/sh
# Install Debian packages from the base image's own sources and leave nothing else behind.
# Usage: apt.sh PACKAGE...    A CA bundle in /run/secrets/ca is trusted for sources behind TLS.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt() {
    if [ -s /run/secrets/ca ]; then
        set -- -o Acquire::https::CAInfo=/run/secrets/ca "$@"
    fi
    apt-get -q -o Dpkg::Use-Pty=0 "$@"
}
apt update
apt install --yes --no-install-recommends "$@"
apt clean
rm -rf /var/lib/apt/lists/* /var/cache/ldconfig/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/* \
    /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/lintian

#!/bin/sh
# Installs the Debian packages that the tests, the demo and the bench drive, where this is Debian and
# root may: otherwise it says what is missing, and those who need it say so again.
# With the argument "python": only what a virtual environment needs.
set -eu

# One at a time: two may run at once, for an environment and for the tests.
exec 9<"$0"
flock 9 2>/dev/null || true

missing=""
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}

if [ "${1:-}" = python ]; then
    ${PYTHON:-python3} -c 'import venv, ensurepip' 2>/dev/null || missing=python3-venv
else
    [ -x /usr/sbin/dockerd ] || missing="$missing docker.io"
    need containerd containerd
    need runc runc
    need podman podman
    need skopeo skopeo
    need redis-server redis-server
    # initdb is outside of PATH, in a folder for each version.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
    need docker-registry docker-registry
    need nginx nginx-light
    need haproxy haproxy
    need squid squid
    need tinyproxy tinyproxy
    need docker-credential-ecr-login amazon-ecr-credential-helper
    need docker-credential-pass golang-docker-credential-helpers
    need pass pass
    need gpg gnupg
    need busybox busybox-static
    need openssl openssl
    need wrk wrk
    need chromium chromium
    need zsh zsh
    need promtool prometheus
    need systemd-analyze systemd
    need ip iproute2
    # Installed by deploy/README.md, with the system's own Python.
    /usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    need buildah buildah
    need mmdebstrap mmdebstrap
    need newuidmap uidmap
    need dpkg-deb dpkg
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    apt-get update -qq
    # No daemon of these packages is to be started: the tests start their own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null
else
    echo "not installed, and not root on Debian to do it:$missing" >&2
fi

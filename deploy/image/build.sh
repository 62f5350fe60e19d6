#!/bin/sh
# Builds the mirror's image from Debian's packages and PyPI's wheels; no base image is pulled, and no
# container runs. Root or not (then subuids and newuidmap are needed, as for rootless podman).
#
#   deploy/image/build.sh [IMAGE]          IMAGE: registry-mirror:<version> when not given
#
#   ARCH=arm64            for another machine: amd64 or arm64; this one's when not given
#   FORMAT=oci            OCI manifests, which have no health check; docker when not given
#   OUT=mirror.tar        an archive for `podman load`, `docker load` or skopeo, too
#   PIP_CONSTRAINT=FILE   versions of the libraries, for the same image again (as pip reads it)
#   EXTRAS=otel           what else of pyproject.toml's optional dependencies: otel for `tracing`
#   SOURCE_DATE_EPOCH=N   the time on every file; that of the last commit when not given
#   DEBIAN, SECURITY      archives to take packages from
#
# Needs mmdebstrap, buildah, and python3 with pip or venv. Some 20 s, and 60 MB fetched.
set -eu

SUITE=trixie PYTHON=python3.13
: "${DEBIAN:=http://deb.debian.org/debian}" "${SECURITY:=http://deb.debian.org/debian-security}"
: "${FORMAT:=docker}"

top=$(cd "$(dirname "$0")/../.." && pwd)
case $(uname -m) in x86_64) here=amd64 ;; aarch64) here=arm64 ;; *) here=$(uname -m) ;; esac
arch=${ARCH:-$here}
case $arch in
    amd64) triplet=x86_64-linux-gnu wheels=x86_64 ;;
    arm64) triplet=aarch64-linux-gnu wheels=aarch64 ;;
    *) echo "build.sh: no wheels for $arch: amd64 or arm64" >&2; exit 2 ;;
esac
case $here in
    amd64) loader=usr/lib64/ld-linux-x86-64.so.2 libraries=usr/lib/x86_64-linux-gnu ;;
    arm64) loader=usr/lib/ld-linux-aarch64.so.1 libraries=usr/lib/aarch64-linux-gnu ;;
    *) echo "build.sh: runs on amd64 and arm64" >&2; exit 2 ;;
esac
for needed in mmdebstrap buildah python3; do
    command -v $needed >/dev/null || { echo "build.sh: $needed is not here" >&2; exit 1; }
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$top/pyproject.toml")
revision=$(git -C "$top" rev-parse HEAD 2>/dev/null || echo unknown)
image=${1:-registry-mirror:$version}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || echo 0)}"

work=$(mktemp -d "${TMPDIR:-/tmp}/registry-mirror-image.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
umask 022
export LC_ALL=C # the order of names

# Unpacks Debian's packages into the folder $2 for the machine $1. None of their scripts run: what
# the image needs of those is done below.
debian() {
    mmdebstrap --quiet --variant=extract --architectures="$1" \
        --include=$PYTHON-minimal,lib$PYTHON-stdlib,ca-certificates,tzdata,netbase \
        --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done' \
        --extract-hook='mkdir -p "$1/var/lib/dpkg/status.d"; for deb in "$1"/var/cache/apt/archives/*.deb; do
            dpkg-deb --field "$deb" >"$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"; done' \
        --dpkgopt=path-exclude='/usr/share/*' \
        --dpkgopt=path-include='/usr/share/zoneinfo/*' \
        --dpkgopt=path-include='/usr/share/ca-certificates/*' \
        --dpkgopt=path-include='/usr/share/doc/*/copyright' \
        --dpkgopt=path-exclude='/usr/lib/*/gconv/*' \
        --dpkgopt=path-exclude='/usr/lib/*/perl*' \
        --dpkgopt=path-exclude='/usr/lib/python3*/ensurepip/*' \
        --dpkgopt=path-exclude='/usr/lib/python3*/pydoc_data/*' \
        --dpkgopt=path-exclude='/usr/lib/python3*/turtle*' \
        $SUITE "$work/$1.tar" "deb $DEBIAN $SUITE main" "deb $DEBIAN $SUITE-updates main" \
        "deb $SECURITY $SUITE-security main"
    mkdir "$2"
    tar -x -f "$work/$1.tar" -C "$2" --no-same-owner --exclude='./dev/*'
    rm "$work/$1.tar"
}

# An archive of what is in the folder $2, the same one for the same files.
archive() {
    tar -c -f "$1" -C "$2" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner --format=gnu .
}

echo "Debian's packages ($SUITE, $arch)" >&2
root=$work/root
debian "$arch" "$root"
# The Python that installs and compiles is the image's own, so that what it chooses fits; for
# another machine it is the same version for this one.
native=$root
[ "$arch" = "$here" ] || { native=$work/native; debian "$here" "$native"; }
own_python() {
    "$native/$loader" --library-path "$native/$libraries" "$native/usr/bin/$PYTHON" "$@"
}

rm -rf "$root"/usr/bin/openssl "$root"/usr/bin/c_rehash "$root"/usr/bin/debconf* "$root"/usr/sbin/* \
    "$root"/etc/apt "$root"/etc/dpkg "$root"/etc/resolv.conf "$root"/var/cache "$root"/var/log \
    "$root"/var/lib/apt "$root"/var/lib/dpkg/[!s]* "$root"/var/lib/dpkg/status "$root"/var/lib/dpkg/status-old
cat "$root"/usr/share/ca-certificates/mozilla/*.crt >"$root/etc/ssl/certs/ca-certificates.crt"
ln -s $PYTHON "$root/usr/bin/python3"
mkdir -p "$root/tmp" "$root/etc" "$root/proc" "$root/sys" "$root/dev" "$root/run"
chmod 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/usr/sbin/nologin\nregistry-mirror:x:10001:10001::/nonexistent:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nregistry-mirror:x:10001:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

echo "The libraries" >&2
packages=usr/local/lib/$PYTHON/dist-packages
tools=$work/tools
if python3 -m pip --version >/dev/null 2>&1; then pip="python3 -m pip"; else
    python3 -m venv "$tools/venv" && pip="$tools/venv/bin/python -m pip"
fi
$pip --quiet --disable-pip-version-check wheel --no-deps --wheel-dir "$work/wheel" "$top" >&2
# A pip that knows this Python, which runs it from its wheel: that of an older machine may not.
$pip --quiet --disable-pip-version-check download --no-deps --dest "$tools" pip >&2
platforms=
for glibc in manylinux2014 manylinux_2_17 manylinux_2_24 manylinux_2_28 manylinux_2_31 manylinux_2_34 manylinux_2_35 manylinux_2_39; do
    platforms="$platforms --platform ${glibc}_$wheels"
done
PYTHONPATH=$(echo "$tools"/pip-*.whl) own_python -B -m pip --quiet --disable-pip-version-check install \
    --root-user-action ignore --no-compile --only-binary=:all: --implementation cp --python-version "${PYTHON#python}" \
    $platforms --target "$work/libraries/$packages" \
    "$(echo "$work"/wheel/*.whl)${EXTRAS:+[$EXTRAS]}" >&2
rm -rf "$work/libraries/$packages/bin"
# What has the name of this build's folder in it: scripts, and where the wheel lay.
sed -i '/^\.\.\//d; /direct_url\.json/d' "$work/libraries/$packages"/*.dist-info/RECORD
rm "$work/libraries/$packages"/registry_mirror-*.dist-info/direct_url.json

# The program is a layer of its own.
program=$work/program
mkdir -p "$program/$packages" "$program/usr/local/bin" "$program/etc/registry-mirror"
mv "$work/libraries/$packages"/mirror "$work/libraries/$packages"/registry_mirror-*.dist-info "$program/$packages/"
cat >"$program/usr/local/bin/registry-mirror" <<EOF
#!/usr/bin/$PYTHON
from mirror.cli import main

main()
EOF
chmod 755 "$program/usr/local/bin/registry-mirror"
cp "$top/deploy/container.yaml" "$program/etc/registry-mirror/mirror.yaml"
chmod 644 "$program/etc/registry-mirror/mirror.yaml"

# Bytecode that is never checked against its source: the image does not change.
for made in "$root" "$work/libraries" "$program"; do
    (cd "$made" && own_python -B -m compileall -q --invalidation-mode unchecked-hash -p / \
        $(for folder in usr/lib/$PYTHON $packages; do [ ! -d $folder ] || echo $folder; done)) >&2
done

echo "The image" >&2
context=$work/context
mkdir "$context"
archive "$context/debian.tar" "$root"
archive "$context/libraries.tar" "$work/libraries"
archive "$context/program.tar" "$program"
# The mirror owns its store and nothing else.
mkdir -p "$work/store/var/lib/registry-mirror"
tar -r -f "$context/program.tar" -C "$work/store" --mtime="@$SOURCE_DATE_EPOCH" --owner=10001 \
    --group=10001 --numeric-owner --mode=0700 --format=gnu ./var/lib/registry-mirror
set -- --quiet --layers --no-cache --timestamp "$SOURCE_DATE_EPOCH" --format "$FORMAT" \
    --os linux --arch "$arch" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --file "$top/deploy/image/Containerfile" --tag "$image"
buildah build "$@" "$context"
if [ -n "${OUT:-}" ]; then
    case $FORMAT in oci) kind=oci-archive ;; *) kind=docker-archive ;; esac
    rm -f "$OUT"
    buildah push --quiet "$image" "$kind:$OUT:$image"
fi
echo "$image: $(buildah inspect --type image --format '{{.FromImageID}}' "$image")" >&2

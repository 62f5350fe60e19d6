#!/bin/sh
# Runs the unit tests, but for those of whole engines, on each of these Pythons that is found here (in
# PATH, or pyenv's), but for the one of .venv, on which `make unit` runs them:
# `tests/pythons.sh run 3.11 3.13`. Which ones they were is said at the end; one that is not here is
# no failure. With `prepare` in place of `run`, their environments are made, and no more.
set -eu
cd "$(dirname "$0")/.."

what=$1
shift
make=${PYTHON:-python3} # what .venv is made with
[ ! -x .venv/bin/python ] || make=.venv/bin/python
own=$("$make" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ran="" failed="" missing=""

find_python() { # find_python 3.12: prints the path of one that runs, and can make an environment
    for python in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if "$python" -c "import ensurepip, sys, venv
sys.exit('%d.%d' % sys.version_info[:2] != '$1')" >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
}

for version in "$@"; do
    [ "$version" != "$own" ] || continue
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        missing="$missing $version"
        continue
    fi
    environment=".venv-$version"
    if ! [ "$environment/.dev" -nt pyproject.toml ]; then
        "$python" deploy/environment.py "$environment" ".[dev]"
        touch "$environment/.dev"
    fi
    [ "$what" = run ] || continue
    echo "unit tests on Python $version:"
    "$environment/bin/pytest" -q -n 4 -o cache_dir="$environment/.pytest" \
        --ignore tests/e2e --ignore tests/faults --ignore tests/deploy --ignore tests/bench \
        --ignore tests/browser --ignore tests/hosted/spec \
        --ignore tests/hosted/test_many_nodes.py --ignore tests/hosted/test_torture.py \
        --ignore tests/storage/test_s3_tier.py ||
        "$environment/bin/python" -m tests.failed_alone "$environment/.pytest" ||
        failed="$failed $version"
    ran="$ran $version"
done

[ "$what" = run ] || exit 0
echo "The unit tests ran on Python $own (.venv)${ran:+, and here on$ran}; not found:${missing:- none}."
[ -z "$failed" ] || { echo "They failed on Python$failed." >&2; exit 1; }

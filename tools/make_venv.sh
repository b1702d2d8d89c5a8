#!/bin/sh
# make_venv.sh DIRECTORY: a virtual environment with pip, of the first Python that is new enough.
#
# Debian splits ensurepip off into python3-venv, and without it `python3 -m venv` fails half-way. The Python that made
# the environment can still install pip into it (pip 22.3 or later); Debian's package is what root tries last.
set -eu
venv=$1

find_python() {
    for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "make_venv: no Python 3.11 or later in PATH" >&2
    echo "hint: apt-get install python3, or put the folder of a newer Python into PATH" >&2
    return 1
}

has_pip() { "$venv/bin/python" -m pip --version; }

with_ensurepip() { rm -rf "$venv" && "$python" -m venv "$venv" && has_pip; }

with_pip_of_the_system() {
    rm -rf "$venv" && "$python" -m venv --without-pip "$venv" &&
        "$python" -m pip --python "$venv/bin/python" install pip && has_pip
}

with_package() {
    [ "$(id -u)" = 0 ] && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv && with_ensurepip
}

if has_pip >/dev/null 2>&1; then exit; fi
python=$(find_python)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for way in with_ensurepip with_pip_of_the_system with_package; do
    if "$way" >>"$log" 2>&1 </dev/null; then exit; fi
done
cat "$log" >&2
echo "make_venv: $python cannot make a virtual environment in $venv, for the reasons above" >&2
echo "hint: apt-get install python3-venv" >&2
exit 1

#!/bin/sh
# Looks every locked version up among known weaknesses with pip-audit, which asks an advisory database on the network.
# $1 is the folder of the Python that it runs in. Ends with 0: none known; 1: some; 2: they could not be looked up.
set -u
home=$(mktemp -d) || exit 2
trap 'rm -rf "$home"' EXIT
# An environment of its own: a tool that judges the dependencies is none of them.
"$1/python" -m venv "$home/venv" && "$home/venv/bin/python" -m pip --quiet install 'pip-audit>=2.9' || {
    echo "pip-audit cannot be installed: is there a package index?"
    exit 2
}
# Both accelerators pin the same packages but for one; what is locked is what is asked about.
grep -h '==' requirements/base.txt requirements/cpu.txt requirements/demo.txt requirements/test.txt |
    sed 's/ *\\$//' > "$home/locked.txt"
"$home/venv/bin/pip-audit" --no-deps --disable-pip --timeout 20 --requirement "$home/locked.txt" > "$home/said" 2>&1
code=$?
cat "$home/said"
grep -q 'Found [0-9]* known' "$home/said" && exit 1
unknown=$(grep -c 'could not be audited' "$home/said")
[ $code -ne 0 ] && unknown=$(wc -l < "$home/locked.txt")
if [ "$unknown" -ne 0 ]; then
    echo "The advisory database said nothing about $unknown of $(wc -l < "$home/locked.txt") packages: they are NOT audited."
    echo "Run this again where the database can be reached."
    exit 2
fi

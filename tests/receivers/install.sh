#!/bin/sh
# Installs receivers of OTLP from PyPI into DIR, unless they are there: install.sh DIR
set -eu
dir=$1
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
# Each in a place of its own: what they depend on does not agree.
for package in rotel==0.0.1a15 'ddapm-test-agent>=1.69,<2'; do
    place=$dir/$(echo "$package" | sed 's/[^a-z-].*//')
    python3 -m venv "$place"
    "$place/bin/pip" --quiet --disable-pip-version-check install "$package"
done
touch "$dir/complete"

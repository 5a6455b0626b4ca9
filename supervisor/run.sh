#!/bin/sh
# What `make run` does: a redis-server of our own if there is one and REDIS_URL names no other, then the supervisor.
# For development. In production an init system starts both: see README.md beside this file.
set -eu
cd "$(dirname "$0")/.."
BIN=$PWD/.venv/bin
export RAGAGENT_DATA__DIR="${RAGAGENT_DATA__DIR:-./ragagent-data}"
umask 077
mkdir -p "$RAGAGENT_DATA__DIR"

redis=
if [ -z "${REDIS_URL:-}" ] && [ -x "$BIN/redis-server" ]; then
    # Not in the data directory: a socket's address holds 108 bytes, and a path may be longer.
    scratch=$(mktemp -d)
    socket="$scratch/redis.sock"
    "$BIN/redis-server" --port 0 --unixsocket "$socket" --unixsocketperm 600 --save '' --appendonly no \
        --maxmemory 128mb --maxmemory-policy allkeys-lru --loglevel warning --logfile '' >/dev/null 2>&1 &
    redis=$!
    export REDIS_URL="unix://$socket"
elif [ -z "${REDIS_URL:-}" ]; then
    echo "No redis-server here: each worker has its local cache only. Set REDIS_URL to use one." >&2
fi

"$BIN/python" -m ragagent.supervisor --config "${RAGAGENT_CONFIG:-conf/development.toml}" &
supervisor=$!
# The shell hears a signal only between commands, so the supervisor runs beside it and is waited for.
trap 'kill -TERM $supervisor 2>/dev/null' TERM
# Ctrl-C reaches the whole group; a second signal would ask the supervisor to hurry.
trap : INT
trap 'kill -HUP $supervisor 2>/dev/null' HUP
status=0
while kill -0 $supervisor 2>/dev/null; do
    wait $supervisor && status=0 || status=$?
done
if [ -n "$redis" ]; then
    kill $redis 2>/dev/null || true
    wait $redis 2>/dev/null || true
    rm -rf "$scratch"
fi
exit $status

#!/usr/bin/env bash
# Build the core image from nothing and use it: a prod server with TLS in it, a key on its volume, one call by grpcurl from
# outside, SIGTERM. Then the same with client certificates. Fails at the first thing that is not as it should be.
#
# Needs root on Debian, grpcurl of .venv, and a network; buildah and debootstrap are installed. There is no registry here, so
# the base is made by debootstrap: Debian 12, on which the published one is built too, with Debian's own Python 3.11. buildah
# isolates with chroot alone, so this works in a container too, and shares the network of the machine. 5 to 8 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

most_mb=350
port=50451
image=localhost/aligner-svc:check base=localhost/aligner-svc-base:check
work=$(mktemp -d)
container='' server=''

say() { printf '==> %s\n' "$*"; }
fail() {
  printf 'check-image: %s\n' "$*" >&2
  [ ! -s "$work/log" ] || { echo "--- the server's output" >&2 && tail -40 "$work/log" >&2; }
  exit 1
}
quietly() { "$@" >"$work/out" 2>&1 || { cat "$work/out" >&2 && fail "$1 failed"; }; }

# The server among the descendants of process $1: buildah has some in between.
server_below() {
  local pid=$1
  while [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm")" != "${command[0]}" ]; do pid=$(pgrep --parent "$pid" | head -1); done
  echo "$pid"
}

cleanup() {
  [ -z "$server" ] || kill -KILL "$(server_below "$server")" || true
  wait
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  buildah rmi --force "$image" "$base" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "needs root on Debian"
if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
  say "installing buildah and debootstrap"
  quietly apt-get update -qq
  DEBIAN_FRONTEND=noninteractive quietly apt-get install -qq --yes --no-install-recommends buildah debootstrap
fi

# ---- building

say "the base: Debian 12 with Python 3.11, by debootstrap"
# python3-distutils: debootstrap does not resolve the virtual package that python3.11-venv needs.
quietly debootstrap --variant=minbase --include=python3.11,python3.11-venv,python3-distutils,ca-certificates bookworm "$work/root"
rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists"
ln -s /usr/bin/python3.11 "$work/root/usr/local/bin/python3.11" # where the published base has it
container=$(buildah from scratch)
quietly buildah add "$container" "$work/root" /
quietly buildah commit --rm "$container" "$base"
container=''
rm -rf "$work/root"

say "the image"
# A machine that reaches PyPI through a mirror or a proxy says so here.
mounts=()
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || mounts+=(--volume "$file:$file:ro")
done
quietly buildah build --isolation chroot --format docker --target core --tag "$image" "${mounts[@]}" --build-arg "BASE=$base" \
  --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" .

# ---- what it says of itself

container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
bytes_of() { du --summarize --apparent-size --block-size=1 --one-file-system "$1" | cut -f1; }
base_container=$(buildah from --pull-never "$base")
size=$((($(bytes_of "$root") - $(bytes_of "$(buildah mount "$base_container")")) / 1000000))
buildah rm "$base_container" >/dev/null
[ "$size" -le "$most_mb" ] || fail "the image has $size MB over its base; at most $most_mb"

# config PATH: of the image's configuration, e.g. Entrypoint, as JSON.
buildah inspect --type image "$image" >"$work/image.json"
config() {
  python3 - "$work/image.json" "$1" <<'PYTHON'
import json, sys

value = json.load(open(sys.argv[1]))["Docker"]["config"]
for name in sys.argv[2].split("."):
    value = value[name]
print(*(value if isinstance(value, (list, dict)) else [value]), sep="\n")
PYTHON
}
[ "$(config User)" = 10001:10001 ] || fail "it runs as $(config User)"
[ "$(config Volumes)" = /var/lib/aligner ] || fail "its volumes are $(config Volumes)"
mapfile -t command < <(config Entrypoint && config Cmd)
mapfile -t health < <(config Healthcheck.Test | tail -n +2)
say "$size MB over its base; runs '${command[*]}', asks '${health[*]}'"

# ---- running

volume=$work/volume
install --directory --owner=10001 --group=10001 --mode=0700 "$volume"
grpcurl() { .venv/bin/grpcurl -cacert "$volume/certs/ca.pem" "$@"; }
# in_container COMMAND...: with the volume where the image says, and the settings of a prod server.
in_container() {
  buildah run --isolation chroot --user 10001:10001 --volume "$volume:/var/lib/aligner" \
    --env ALIGNER_SERVER__PROFILE=prod --env "ALIGNER_SERVER__LISTEN=0.0.0.0:$port" --env ALIGNER_AUTH__METHODS="$methods" \
    --env ALIGNER_METRICS__LISTEN=0.0.0.0:59464 --env ALIGNER_AUDIT__FILE=/var/lib/aligner/audit.jsonl \
    --env ALIGNER_TLS__CERTIFICATE=/var/lib/aligner/certs/server.pem --env ALIGNER_TLS__KEY=/var/lib/aligner/certs/server.key \
    ${client_ca:+--env "ALIGNER_TLS__CLIENT_CA=$client_ca"} "$container" -- "$@"
}
methods=api_key client_ca=
quietly in_container aligner devcerts /var/lib/aligner/certs
key=$(in_container aligner keys create --label check --scope align 2>"$work/out") || fail "no key: $(cat "$work/out")"
[ -s "$volume/keys.db" ] && [ -s "$volume/keys.pepper" ] || fail "the keys are not on the volume: $(ls "$volume")"
request=$(.venv/bin/python samples/request.py)

# called OPTIONS...: the start of the first word, through grpcurl on this side of the container.
called() {
  # Authenticated, so without reflection: grpcurl takes the API from protos/.
  grpcurl "$@" -import-path protos -proto aligner/v1/aligner.proto -d @ "localhost:$port" aligner.v1.Aligner/Align <<<"$request" |
    python3 -c 'import json, sys; words = json.load(sys.stdin)["words"]; print(len(words), "words,", words[0])'
}

serve_and_call() {
  local what=$1 status=0
  shift
  in_container "${command[@]}" >"$work/log" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    ! in_container "${health[@]}" >"$work/health" 2>&1 || break
    kill -0 "$server" 2>/dev/null || { server='' && fail "$what: the server ended"; }
    sleep 0.2
  done
  in_container "${health[@]}" >"$work/health" 2>&1 || fail "$what: not healthy: $(cat "$work/health")"
  called "$@" >"$work/out" || fail "$what: the call failed"
  say "$what: healthy; $(cat "$work/out")"
  # mTLS alone, or TLS alone: all but the key.
  ! called "${@:1:$#-2}" >/dev/null 2>&1 || fail "$what: a caller without a key was answered"
  kill -TERM "$(server_below "$server")"
  wait "$server" || status=$?
  server=''
  [ "$status" = 0 ] && grep -q draining "$work/log" || fail "$what: SIGTERM ended it with status $status"
  ! in_container "${health[@]}" >/dev/null 2>&1 || fail "$what: healthy although it has ended"
  say "$what: SIGTERM: drained, status 0"
}

serve_and_call "TLS and an API key" -H "x-api-key: $key"
client_ca=/var/lib/aligner/certs/ca.pem
serve_and_call "mTLS and an API key" -cert "$volume/certs/client.pem" -key "$volume/certs/client.key" -H "x-api-key: $key"
[ -s "$volume/audit.jsonl" ] || fail "the audit log is not on the volume: $(ls "$volume")"
say "passed: $size MB over its base, at most $most_mb"

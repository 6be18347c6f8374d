#!/usr/bin/env bash
# The integration tests, compiled outside and run inside the stack's network. Cargo runs one file after the other, and most of a
# file's time is waiting for servers; so there are two rows of files. One begins with those that define or remove what concerns
# the whole Kubernetes cluster, the other with those that do not use Kubernetes; then both take from those that keep to a
# namespace of their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${CARGO_TARGET_DIR:?run me through make}"

# One file, in its package's folder as cargo does it. Output is shown when it failed.
run() {
  local source=$1 program=$2 log begun=$SECONDS
  log=$(mktemp)
  if (cd "${source%/tests/*}" && "$CARGO_TARGET_DIR/debug/stack" exec -- "$program" --test-threads="$threads") &>"$log"; then
    echo "$source: $(sed -n 's/^test result: //p' "$log")"
  else
    echo "==== $source failed after $((SECONDS - begun)) s"; cat "$log"; failed=yes
  fi
  rm "$log"
}

# The files of a list of sources and programs, so many tests at a time; it goes on after a failure.
row() {
  local threads=$1 failed=no source program
  while read -r source program; do run "$source" "$program" </dev/null; done
  [ $failed = no ]
}

# Takes the first file that is left and runs it, until none is: more than one row may do so.
rest() {
  local failed=no line
  while line=$(flock "$folder/lock" sh -c 'sed -n 1p "$0"; sed -i 1d "$0"' "$folder/left") && [ -n "$line" ]; do
    row 1 <<<"$line" || failed=yes
  done
  [ $failed = no ]
}

# Processes of worker and operator are what ships: as the images, of which this builds nothing anew in `make test`, and with
# less of the processor than a debug build takes.
cargo build -q --locked --release -p sluice-operator -p sluice-worker
export SLUICE_WORKER_BIN="$CARGO_TARGET_DIR/release/sluice-worker" SLUICE_OPERATOR_BIN="$CARGO_TARGET_DIR/release/sluice-operator"
built=$(cargo test --color never --workspace --locked --no-run --test '*' 2>&1) || { echo "$built" >&2; exit 1; }
# "  Executable tests/api.rs (<target>/debug/deps/api-0123456789abcdef)"
list=$(sed -nE 's/^ *Executable (tests\/.*\.rs) \((.*)\)$/\1 \2/p' <<<"$built" | while read -r source program; do
  sources=(*/"$source")
  [ ${#sources[@]} = 1 ] || { echo "two files are named $source: they could not be told apart" >&2; exit 1; }
  echo "${sources[0]} $program"
done)
found=$(wc -l <<<"$list") there=$(git ls-files '*/tests/*.rs' | grep -cE '^[^/]+/tests/([^/]+|[^/]+/main)\.rs$')
[ "$found" = "$there" ] || { echo "cargo built $found test files of $there" >&2; exit 1; }

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cluster='^e2e/tests/(api|operator_(chart_api|helm|metrics_api|rights))\.rs '
namespaced='^e2e/tests/operator_[a-z_]+\.rs '
grep -vE "$cluster" <<<"$list" | grep -E "$namespaced" >"$folder/left"
# Nobody takes of them before the whole cluster is left alone.
exec 9>"$folder/lock"
flock 9
(
  result=0
  grep -E "$cluster" <<<"$list" | row 1 || result=1
  flock -u 9
  rest || result=1
  exit $result
) &
others=$!
result=0
grep -vE "$cluster|$namespaced" <<<"$list" | row 2 || result=1
rest || result=1
wait $others || result=1
exit $result

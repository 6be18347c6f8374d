#!/usr/bin/env bash
# The integration tests, compiled outside and run inside the stack's network, two files at a time: cargo runs one file after the
# other, and most of them wait for servers most of the time. The ones that took longest the last time begin.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${SLUICE_CACHE:?run me through make}" "${CARGO_TARGET_DIR:?run me through make}"
export took="$SLUICE_CACHE/test-seconds"
mkdir -p "$took"

# tests/api.rs is api, tests/kafka_admin/main.rs is kafka_admin.
name_of() {
  local name=${1##*tests/}
  name=${name%.rs}
  echo "${name%/main}"
}
export -f name_of

# One file, in its package's folder as cargo does it. Output is shown when it failed.
run() {
  local source=$1 program=$2 name log begun=$SECONDS passed=yes
  name=$(name_of "$source") log=$(mktemp)
  (cd "${source%/tests/*}" && "$CARGO_TARGET_DIR/debug/stack" exec -- "$program" --test-threads="${SLUICE_TEST_THREADS:-2}") >"$log" 2>&1 || passed=no
  echo "$((SECONDS - begun))" >"$took/$name"
  if [ $passed = yes ]; then grep -h '^test result' "$log" | sed "s/^test result/$name/"; rm "$log"; return; fi
  echo "==== $name failed"; cat "$log"; rm "$log"
  return 1
}
export -f run

built=$(cargo test --color never --workspace --locked --no-run --test '*' 2>&1) || { echo "$built" >&2; exit 1; }
# "  Executable tests/api.rs (<target>/debug/deps/api-0123456789abcdef)"
list=$(sed -nE 's/^ *Executable (tests\/.*\.rs) \((.*)\)$/\1 \2/p' <<<"$built" | while read -r source program; do
  sources=(*/"$source")
  [ ${#sources[@]} = 1 ] || { echo "two files are named $source: they could not be told apart" >&2; exit 1; }
  echo "$(cat "$took/$(name_of "$source")" 2>/dev/null || echo 9999) ${sources[0]} $program"
done | sort -rn | cut -d' ' -f2-)
found=$(wc -l <<<"$list") there=$(git ls-files '*/tests/*.rs' | grep -cE '^[^/]+/tests/([^/]+|[^/]+/main)\.rs$')
[ "$found" = "$there" ] || { echo "cargo built $found test files of $there" >&2; exit 1; }
xargs -P "${SLUICE_TEST_FILES:-2}" -L 1 bash -euo pipefail -c 'run "$@"' run <<<"$list"

#!/usr/bin/env bash
# The phases of `make test`, cheapest first. Each prints its time and has a time-out; a failure shows what the stack was doing.
#   .ci/phases.sh [PHASE…]     all phases, or those named
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${SLUICE_CACHE:?run me through make}" "${CARGO_TARGET_DIR:?run me through make}"
export CARGO_TERM_COLOR=never
# In CI a part of the stack that is missing is a failure, not a skipped test.
[ "${CI:-}" = true ] && export SLUICE_REQUIRE_STACK=1

stack() { cargo run -q -p sluice-e2e --bin stack -- "$@"; }

phase_format()    { cargo fmt --all --check; }
phase_lint()      { cargo clippy -q --workspace --all-targets --locked -- -D warnings; }
phase_pure()      { config/check-pure.sh; }
phase_licenses()  { .ci/cargo-deny.sh check bans licenses sources; }
phase_build()     { cargo build -q --workspace --locked && cargo test -q --workspace --locked --no-run; }
phase_unit()      { cargo test -q --workspace --locked --lib --bins; cargo test -q --locked --workspace --doc; }
phase_reap()      { stack down || true; }
phase_stack()     { make --no-print-directory stack; }
phase_chart()     { stack exec -- charts/check.sh; }
phase_images()    { make --no-print-directory images; }
phase_stacktests() { .ci/stack-tests.sh; }

# The whole product once more, small: what a newcomer sees first.
phase_demo() {
  stack exec -- env ORDERS="${SLUICE_DEMO_ORDERS:-3000}" "$CARGO_TARGET_DIR/debug/demo"
}

declare -A limit=([format]=180 [lint]=1500 [pure]=180 [licenses]=900 [build]=2400 [unit]=1200 [reap]=180 [stack]=2400 [chart]=360 [images]=2400 [stacktests]=2400 [demo]=900)
all=(format pure build reap unit lint licenses stack chart images stacktests demo)

failed() {
  echo "FAILED in phase $1 after $((SECONDS - start)) s" >&2
  # Resources, events and log ends; the stack's own command leaves secrets out.
  case "$1" in stack|images|stacktests|demo) stack dump >&2 || true ;; esac
  exit 1
}

export -f phase_format phase_lint phase_pure phase_licenses phase_build phase_unit phase_reap phase_stack phase_chart phase_images phase_stacktests phase_demo stack
for phase in "${@:-${all[@]}}"; do
  start=$SECONDS
  echo "== $phase (at most ${limit[$phase]} s)"
  timeout --foreground -k 20 "${limit[$phase]}" bash -euo pipefail -c "phase_$phase" || failed "$phase"
  echo "== $phase: $((SECONDS - start)) s"
done
echo "== all phases: $SECONDS s"

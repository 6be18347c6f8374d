#!/usr/bin/env bash
# cargo-deny of one pinned version, kept in the cache: `cargo install` takes minutes, a CI run should pay it once.
set -euo pipefail
version=0.20.2
tools="${SLUICE_CACHE:?run me through make}/tools/cargo-deny-$version"
if [ ! -x "$tools/bin/cargo-deny" ]; then
  CARGO_TARGET_DIR="$tools/target" cargo install -q cargo-deny --locked --version "$version" --root "$tools" --no-track
  rm -rf "$tools/target"
fi
exec "$tools/bin/cargo-deny" "$@"

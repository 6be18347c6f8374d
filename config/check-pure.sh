#!/usr/bin/env bash
# The pure crates must stay free of runtimes and network clients: whoever only checks a resource builds neither.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
banned='tokio|hyper|rdkafka|rdkafka-sys|redis|rustls|openssl-sys|kube-client|kube-runtime'
tree=$(cargo tree --locked -e normal --prefix none --format '{p}' -p sluice-crds -p sluice-transform -p sluice-autoscaler)
# The check must not pass because nothing was listed.
for crate in crds transform autoscaler; do grep -q "^sluice-$crate " <<<"$tree"; done
if found=$(grep -E "^($banned) v" <<<"$tree" | sort -u); then
  echo "sluice-crds, sluice-transform and sluice-autoscaler are pure, but their trees hold:" >&2
  echo "$found" >&2
  exit 1
fi

#!/usr/bin/env bash
# Builds both images from binaries compiled on this machine and loads them into the stack's node.
#   e2e/images.sh PROFILE     `release`, which is what ships, or `dev`, which is quicker to compile
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
profile=${1:-dev}
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
tag=${SLUICE_IMAGE_TAG:-dev}
echo "compiling operator and worker ($profile; some minutes the first time)" >&2
# The whole workspace for `dev`: the same features, so nothing is compiled twice.
if [ "$profile" = dev ]; then cargo build ${CARGO_QUIET--q} --locked --workspace --bins
else cargo build ${CARGO_QUIET--q} --locked --profile "$profile" -p sluice-operator -p sluice-worker; fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

for name in operator worker; do
  binary="$CARGO_TARGET_DIR/$folder/sluice-$name"
  root="$context/dist/$name"
  install -D --mode=755 "$binary" "$root/usr/bin/sluice-$name"
  # The base is empty, so the loader and the libraries it names come along, at the paths it looks for them.
  strip --strip-debug "$root/usr/bin/sluice-$name"
  ldd "$binary" | grep -oE '/[^ ]+' | sort -u | while read -r library; do install -D --mode=755 "$library" "$root$library"; done
done

echo "building images and loading them into the stack" >&2
for name in operator worker; do
  cargo run -q --locked -p sluice-e2e --bin stack -- image build --file Dockerfile --target "$name" \
    --build-arg BIN=prebuilt --build-arg RUNTIME_IMAGE=scratch --tag "localhost/sluice-$name:$tag" "$context"
done

#!/usr/bin/env bash
# Checks the chart without a cluster: lint, what it renders (against charts/golden), what its schema must refuse, and
# that a packaged chart renders the same. Needs helm on the PATH.
#   charts/check.sh [--update]     --update rewrites the golden files
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "chart: $*" >&2; failures=$((failures + 1)); }

# Helm tells on stderr that files/crds is a link; other words of it are shown when something fails.
render() { helm template sluice "$@" --namespace sluice-system --kube-version 1.33.0 2>"$work/words" || { cat "$work/words" >&2; return 1; }; }
# The generated install key differs each time.
fixed() { sed -E 's/^(  install-key: ).+/\1(random)/'; }

for values in sluice/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  helm lint --strict --quiet sluice --values "$values" >"$work/lint" 2>&1 || { cat "$work/lint" >&2; fail "lint with $values"; }
  render sluice --values "$values" --set crds.enabled=false | fixed >"$work/$name.yaml"
  if [ "${1:-}" = --update ]; then cp "$work/$name.yaml" "golden/$name.yaml"
  else diff -u "golden/$name.yaml" "$work/$name.yaml" || fail "$values renders something else; if that is meant: charts/check.sh --update"; fi
done

# Both CRDs, as generated, and by default kept at uninstall.
crds() { render sluice --values sluice/ci/minimal-values.yaml --show-only templates/crds.yaml "$@"; }
for keep in true false; do
  crds --set crds.keep=$keep >"$work/crds.yaml"
  [ "$(grep -c '^kind: CustomResourceDefinition$' "$work/crds.yaml")" = "$(ls ../config/crds/*.yaml | wc -l)" ] || fail "not every CRD is rendered"
  [ "$(grep -c 'helm.sh/resource-policy: keep' "$work/crds.yaml" || true)" = "$([ $keep = true ] && ls ../config/crds/*.yaml | wc -l || echo 0)" ] || fail "crds.keep=$keep"
  # Helm reads numbers as floating point: a large bound would come out in another form.
  if grep -nE ': [0-9.]+e\+' "$work/crds.yaml"; then fail "a number of a CRD lost its form"; fi
done

helm package sluice --destination "$work" >/dev/null 2>&1
[ -z "$(tar -tzf "$work"/sluice-*.tgz | grep /ci/)" ] || fail "values of the checks are in the package"
render "$work"/sluice-*.tgz --values sluice/ci/full-values.yaml >"$work/packaged.yaml"
render sluice --values sluice/ci/full-values.yaml | diff -u - "$work/packaged.yaml" || fail "the packaged chart renders something else"

# A copy that lost the link must say so, not install an operator that waits for kinds nobody has made.
mkdir "$work/copied" && cp -r sluice "$work/copied/" && rm -r "$work/copied/sluice/files/crds" && echo ../../../config/crds >"$work/copied/sluice/files/crds"
if render "$work/copied/sluice" --values sluice/ci/minimal-values.yaml >/dev/null 2>&1; then fail "a chart without CRDs is taken"; fi
grep -qF "the chart has no CRDs" "$work/words" || fail "a chart without CRDs is refused with other words"

refused() {
  local expected=$1; shift
  if helm template sluice sluice --kube-version 1.33.0 "$@" >/dev/null 2>"$work/words"; then fail "taken: $*"; return; fi
  grep -qF -- "$expected" "$work/words" || { cat "$work/words" >&2; fail "refused with other words than '$expected': $*"; }
}
ok=(--values sluice/ci/full-values.yaml)
refused "instanceId is required"
refused "instanceId" "${ok[@]}" --set instanceId=Not_A_Label
refused "instanceId" "${ok[@]}" --set instanceId=longer-than-twenty-letters
refused "surplus" "${ok[@]}" --set surplus=1
refused "surplus" "${ok[@]}" --set worker.image.surplus=1
refused "surplus" "${ok[@]}" --set 'connections.kafka[0].surplus=1'
refused "brokers" "${ok[@]}" --set 'connections.kafka[0].brokers=null'
refused "mechanism" "${ok[@]}" --set 'connections.kafka[0].admin.mechanism=SCRAM-SHA-1'
refused "maxRollOuts" "${ok[@]}" --set 'connections.kafka[0].maxRollOuts=0'
refused "mode" "${ok[@]}" --set 'connections.redis[0].mode=Sentinel'
refused "namespaces" "${ok[@]}" --set 'connections.redis[0].namespaces[0].name=Not_A_Namespace'
refused "namespaces" "${ok[@]}" --set 'connections.kafka[0].namespaces[0].own[0]='
refused "lagMonitors" "${ok[@]}" --set 'lagMonitors[0].surplus=1'
refused "lagMonitors" "${ok[@]}" --set 'lagMonitors[0].topics=null'
refused "externalMetrics" "${ok[@]}" --set externalMetrics.surplus=1
refused "pullPolicy" "${ok[@]}" --set image.pullPolicy=Sometimes
refused "1.33.0" "${ok[@]}" --kube-version 1.30.0

[ "$failures" = 0 ] || { echo "chart: $failures failures" >&2; exit 1; }
echo "chart: lint, golden files, CRDs, package and refusals are as they should be"

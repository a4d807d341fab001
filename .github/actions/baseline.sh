#!/usr/bin/env bash
# Find what is checked against, and say its path in the output "path": empty where there is none yet.
set -euo pipefail

path="$INPUT_BASELINE"
if [ "$INPUT_BASELINE" = artifact ]; then
  path=""
  folder="${RUNNER_TEMP:?}/edgeprune-baseline"
  rm -rf "$folder"
  workflow="${GITHUB_WORKFLOW_REF#"$GITHUB_REPOSITORY"/}"
  workflow="$(basename "${workflow%%@*}")"
  run="$(gh run list --repo "$GITHUB_REPOSITORY" --workflow "$workflow" --branch "${DEFAULT_BRANCH:-main}" \
    --event push --status success --limit 1 --json databaseId --jq '.[0].databaseId // empty')"
  if [ -z "$run" ]; then
    echo "::notice title=edgeprune::No successful run on ${DEFAULT_BRANCH:-main} yet, so there is no baseline."
  elif gh run download "$run" --repo "$GITHUB_REPOSITORY" --name "$INPUT_ARTIFACT" --dir "$folder"; then
    path="$folder"
  else
    echo "::warning title=edgeprune::Run $run has no artifact that can be taken as baseline."
  fi
elif [ -n "$INPUT_BASELINE" ] && [ ! -e "$INPUT_BASELINE" ]; then
  echo "::error title=edgeprune::The baseline is not in the repository; commit it, or set baseline to artifact."
  exit 2
fi
echo "path=$path" >> "$GITHUB_OUTPUT"

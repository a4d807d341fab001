#!/usr/bin/env bash
# Run the gate; its status becomes an output, so that later steps upload and comment before the job ends by it.
set -uo pipefail

results="${RUNNER_TEMP:?}/edgeprune-check"
mkdir -p "$results"
summary="$results/summary.md"
comment="$results/comment.md"
rm -f "$summary" "$comment"

arguments=(--time-limit "$INPUT_TIME_LIMIT" --inconclusive "$INPUT_INCONCLUSIVE")
[ -n "$BASELINE" ] && arguments+=(--baseline "$BASELINE")
[ -n "$INPUT_BUDGET" ] && arguments+=(--budget "$INPUT_BUDGET")

if [ -z "$BASELINE" ] && [ -z "$INPUT_BUDGET" ]; then
  # The first run on the default branch makes the baseline of all later ones.
  status=0
  printf '## edgeprune check\n\nNothing to check against yet: this result becomes the baseline.\n' > "$summary"
  { echo '<!-- edgeprune-check -->'; cat "$summary"; } > "$comment"
else
  edgeprune check "$INPUT_OUTPUT" "${arguments[@]}" --junit "$results/junit.xml" \
    --summary "$summary" --comment "$comment"
  status=$?
fi

case "$status" in
  0) decision=passed ;;
  1) decision=failed ;;
  3) decision=inconclusive ;;
  *) decision=error ;;
esac
if [ ! -s "$summary" ]; then
  printf '## edgeprune check\n\nNothing was checked: status %s, see the log.\n' "$status" > "$summary"
  { echo '<!-- edgeprune-check -->'; cat "$summary"; } > "$comment"
  echo "::error title=edgeprune check::Nothing was checked: status $status, see the log."
fi
cat "$summary" >> "$GITHUB_STEP_SUMMARY"
{
  echo "status=$status"
  echo "decision=$decision"
  echo "comment=$comment"
  echo "junit=$results/junit.xml"
} >> "$GITHUB_OUTPUT"

#!/usr/bin/env bash
# Compress INPUT_MODEL for INPUT_TARGET with the options of INPUT_ARGS into INPUT_OUTPUT.
set -euo pipefail

# Quotes count as in a shell, but nothing is expanded or run.
arguments=()
while IFS= read -r -d '' argument; do
  arguments+=("$argument")
done < <(python -c 'import shlex, sys; sys.stdout.writelines(a + "\0" for a in shlex.split(sys.argv[1]))' "$INPUT_ARGS")

edgeprune compress "$INPUT_MODEL" --target "$INPUT_TARGET" --output "$INPUT_OUTPUT" --overwrite \
  ${arguments[@]+"${arguments[@]}"}

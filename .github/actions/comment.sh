#!/usr/bin/env bash
# Put COMMENT_FILE under PULL_REQUEST: into the comment of an earlier run, which its hidden marks tell, or a new one.
# The second mark is the artifact's name, so that every job of a matrix has a comment of its own.
set -euo pipefail

mark='<!-- edgeprune-check -->'
name="$(printf %s "${INPUT_ARTIFACT:-edgeprune}" | tr -c 'A-Za-z0-9._-' '_')"
body="${RUNNER_TEMP:?}/edgeprune-check/body.md"
marks="$mark"
if [ "$name" != edgeprune ]; then
  marks="$mark<!-- $name -->"
  { printf '%s\n\n**%s**\n' "$marks" "$name"; tail -n +2 "$COMMENT_FILE"; } > "$body"
else
  cp "$COMMENT_FILE" "$body"
fi
comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments"
earlier="$(gh api "$comments" --paginate --jq ".[] | select(.user.type == \"Bot\" and (.body | split(\"\n\")[0] | rtrimstr(\"\r\")) == \"$marks\") | .id" | head -n 1)"
if [ -n "$earlier" ]; then
  gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$earlier" --field "body=@$body" --silent
else
  gh api --method POST "$comments" --field "body=@$body" --silent
fi

#!/usr/bin/env bash
# Put COMMENT_FILE under PULL_REQUEST: into the comment of an earlier run, which its hidden mark tells, or a new one.
set -euo pipefail

mark='<!-- edgeprune-check -->'
comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments"
earlier="$(gh api "$comments" --paginate --jq ".[] | select(.user.type == \"Bot\" and (.body | startswith(\"$mark\"))) | .id" | head -n 1)"
if [ -n "$earlier" ]; then
  gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$earlier" --field "body=@$COMMENT_FILE" --silent
else
  gh api --method POST "$comments" --field "body=@$COMMENT_FILE" --silent
fi

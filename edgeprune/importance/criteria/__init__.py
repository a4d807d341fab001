"""One criterion per file, ours and the baselines."""

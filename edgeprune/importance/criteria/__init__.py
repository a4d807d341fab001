"""One criterion a file, ours and the baselines."""

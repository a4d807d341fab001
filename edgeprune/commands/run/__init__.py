"""What the commands on networks share: options, stages, time limits, resuming, the report."""

"""Shared parts of the network commands: options, stages, time limits, resuming, the report."""

"""The process around a command: streams, signals, what it says."""

"""The process around a command: streams, signals, messages."""

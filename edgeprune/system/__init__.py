"""The host machine, the process and its libraries."""

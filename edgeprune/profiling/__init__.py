"""Latency and memory: measured on this host, or predicted for a device and said to be so."""

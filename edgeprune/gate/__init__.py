"""Decisions of the gate from intervals and from rounds of measurements; pure functions."""

"""Profiles of devices: made by measuring a grid of small networks, compared, added."""

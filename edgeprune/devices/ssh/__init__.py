"""Devices over ssh: the connection, Python there, and a work folder that lasts as long as the connection."""

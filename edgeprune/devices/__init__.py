"""Measuring on a device: the job, what carries it there, and the measurer that commands use."""

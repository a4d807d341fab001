"""Implementation of the commands, stage by stage."""

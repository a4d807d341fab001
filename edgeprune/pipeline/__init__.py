"""The way through the stages: only this package knows them all."""

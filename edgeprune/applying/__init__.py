"""Replay a pruning on the user's own module, to train it on."""

from edgeprune.applying.replay import apply_surgery

__all__ = ["apply_surgery"]

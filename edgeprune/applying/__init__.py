"""Replay a pruning on the user's own module, for further training."""

from edgeprune.applying.replay import apply_surgery

__all__ = ["apply_surgery"]

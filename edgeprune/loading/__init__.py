"""Load a trained model from a file, a torchvision name or a module in memory."""

from edgeprune.loading.model import load_model

__all__ = ["load_model"]

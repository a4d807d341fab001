"""One module a family of operators; importing this package fills the table."""

from edgeprune.loading.onnx_import.operators import (
    activations,
    elementwise,
    indexing,
    layers,
    norms,
    padding,
    pooling,
    recurrent,
    reductions,
    resizing,
    shapes,
)

__all__ = [
    "activations",
    "elementwise",
    "indexing",
    "layers",
    "norms",
    "padding",
    "pooling",
    "recurrent",
    "reductions",
    "resizing",
    "shapes",
]

"""Hashes of a network and of images, to reuse results for the same inputs."""

from __future__ import annotations

import hashlib

from torch import Tensor

from edgeprune.artifacts.calibration import ImageBatch
from edgeprune.artifacts.model import CapturedModel
from edgeprune.attributes import get_attribute


def network_sha256(captured: CapturedModel) -> str:
    """Hash of the captured graph and every tensor in it."""
    module = captured.graph_module
    digest = hashlib.sha256(module.code.encode())
    for name in sorted({str(n.target) for n in module.graph.nodes if n.op == "get_attr"}):
        value = get_attribute(module, name)
        if isinstance(value, Tensor):
            _add(digest, name, value)
    return digest.hexdigest()


def images_sha256(batch: ImageBatch) -> str:
    """Hash of the pixels as fed to the network, and the labels, in order."""
    digest = hashlib.sha256()
    _add(digest, "images", batch.images)
    if batch.labels is not None:
        _add(digest, "labels", batch.labels)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())

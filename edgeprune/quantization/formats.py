"""Which 8-bit form a target runs fastest."""

from __future__ import annotations

from edgeprune.artifacts.quantization import IntegerFormat
from edgeprune.targets import TargetProfile


def integer_format(target: TargetProfile) -> IntegerFormat:
    """Signedness and range from the target's instruction set.

    Kernels of onnxruntime's MLAS: x86 multiplies unsigned activations with signed weights, and without
    VNNI adds pairs of products in 16 bits, which full 8-bit weights overflow (vpmaddubsw); Arm with the dot
    product instruction multiplies signed with signed.
    """
    isa = (target.isa or "").lower()
    if isa.startswith(("arm", "aarch")):
        if target.dot_product:
            return IntegerFormat(
                signed_activations=True,
                reduce_range=False,
                reason="Arm with the dot product instruction: signed activations and weights",
            )
        return IntegerFormat(
            signed_activations=False,
            reduce_range=False,
            reason="Arm without the dot product instruction: products are widened to 16 bits, so neither "
            "sign is much faster; unsigned activations",
        )
    if target.dot_product:
        return IntegerFormat(
            signed_activations=False,
            reduce_range=False,
            reason="x86 with VNNI: unsigned activations, signed weights; signed activations break fusion",
            pixel_blocks=True,  # measured on x86 with VNNI only
        )
    known = "x86 without VNNI" if isa else "unknown instruction set, taken as x86 without VNNI"
    return IntegerFormat(
        signed_activations=False,
        reduce_range=True,
        reason=f"{known}: unsigned activations, and weights in 7 bits, since pairs of products are added in "
        "16 bits",
    )

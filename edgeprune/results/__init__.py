"""Results of the public functions other than ``compress``, and their rendering."""

from edgeprune.results.files import ProfileResult, QuantizationResult, Verification
from edgeprune.results.networks import DryRun, GroupRow, Inspection, PickedCandidate, PredictedCost

__all__ = [
    "DryRun",
    "GroupRow",
    "Inspection",
    "PickedCandidate",
    "PredictedCost",
    "ProfileResult",
    "QuantizationResult",
    "Verification",
]

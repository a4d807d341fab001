"""Select players to remove: least value lost within limits on the network's costs. Pure, no torch."""

from edgeprune.selection.choosing import MIN_CHANNELS, STEPS_PER_GROUP, least_costs, select, within_limits
from edgeprune.selection.costs import (
    CostModel,
    LayerCost,
    Limit,
    Product,
    RooflineCost,
    TableCost,
    Widths,
    macs_model,
)

__all__ = [
    "MIN_CHANNELS",
    "STEPS_PER_GROUP",
    "CostModel",
    "LayerCost",
    "Limit",
    "Product",
    "RooflineCost",
    "TableCost",
    "Widths",
    "least_costs",
    "macs_model",
    "select",
    "within_limits",
]

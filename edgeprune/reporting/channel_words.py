"""Sentences on outputs channel by channel."""

from __future__ import annotations

from edgeprune.artifacts.report import ChannelSummary
from edgeprune.reporting.formatting import format_error


def constant_channels(channels: ChannelSummary) -> str:
    """Warning that channels no longer depend on the image."""
    first = channels.worst[0]
    return (
        f"{channels.constant} of {channels.channels} output channels became CONSTANT (the first is channel "
        f"{first.channel} of output {first.output})"
    )


def worst_channel(channels: ChannelSummary) -> str:
    """The worst channel and how far it is off."""
    worst = channels.worst[0]
    place = f"channel {worst.channel} of output {worst.output}"
    if worst.constant:
        return f"{place}, which became CONSTANT ({channels.constant} of {channels.channels} did)"
    return f"{place}, off by {format_error(worst.relative_error)} of its spread"

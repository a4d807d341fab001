"""A first run without anything of your own: ``demo``."""

from __future__ import annotations

from pathlib import Path

from edgeprune.api.networks import compress_network
from edgeprune.artifacts.report import RunReport
from edgeprune.commands.demo.bundled_example import write_example
from edgeprune.options.runs import CompressOptions
from edgeprune.targets import load_target

DEMO_RATIO = 0.5


def demo(
    output: str | Path = "edgeprune-demo",
    *,
    target: str = "rpi4",
    overwrite: bool = False,
    command: str | None = None,
) -> RunReport:
    """Compress the bundled network for 8x8 digits to half of its multiply-accumulates; downloads nothing.

    Args:
        output: folder to write: the network, its code and images, and in ``compressed`` what :func:`compress`
            makes of them.
        target: device to compress for.

    Raises:
        OutputError: ``output`` cannot be written, or is there already.
        TargetError: there is no such target.
    """
    load_target(target)
    asked = command or "edgeprune.demo (Python API)"
    example = write_example(Path(output), replace=overwrite, asked_by=asked)
    options = CompressOptions(
        model=str(example.model),
        arch=example.arch,
        calibration=str(example.images),
        output=example.compressed,
        target=target,
        ratio=DEMO_RATIO,
        threads=1,
        overwrite=overwrite,
        command=example.command(target, DEMO_RATIO),
    )
    return compress_network(options)

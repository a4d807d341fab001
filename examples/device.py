"""What a file costs here, what is predicted for a Raspberry Pi 4, and what measures it there.

Run as: python examples/device.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_networks import trained_classifier

import edgeprune


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "classifier.onnx"
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(trained_classifier(), (torch.zeros(1, 1, 16, 16),), path, verbose=False, **names)
    here = edgeprune.profile(path, target="host", threads=1)
    there = edgeprune.profile(path, target="rpi4", threads=1)
    print(f"{here.figures.size_bytes:,} bytes, {here.figures.macs:,} multiply-accumulates")
    if here.figures.latency is not None:
        latency = here.figures.latency
        print(f"{latency.latency_p50_ms:.3f} ms ({latency.provenance.value})")
    if there.prediction is not None:
        prediction = there.prediction
        print(
            f"{prediction.latency_ms:.3f} ms on {there.target} ({prediction.provenance.value}, from "
            f"{prediction.low_ms:.3f} to {prediction.high_ms:.3f}): measure on the device before you decide"
        )
    # For a board that cannot be reached by ssh: copy this there, unpack it, run "sh run.sh", and read its
    # result.json here with edgeprune.profile(path, result="result.json").
    bench = folder / "bench.tar.gz"
    edgeprune.bundle([path], output=bench, threads=1, overwrite=True)
    print(f"{bench}: {bench.stat().st_size:,} bytes to copy to the board and measure there")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-out/device"))

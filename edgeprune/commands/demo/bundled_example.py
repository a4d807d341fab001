"""Write the bundled example, a trained network for digits with its images, where it can be compressed."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeprune.storage.outputs import sha256_file, staged_output, write_manifest
from edgeprune.system.data import data_dir

WEIGHTS, CODE, FACTORY = "digits_net.safetensors", "model.py", "digits_net"
IMAGES, CARD, PICTURE = "digits.npz", "digits.toml", "digit.npy"
COMPRESSED = "compressed"


@dataclass(frozen=True, kw_only=True)
class BundledExample:
    """A folder with the bundled network, its code, its calibration images and one picture."""

    folder: Path

    @property
    def model(self) -> Path:
        """The trained weights."""
        return self.folder / WEIGHTS

    @property
    def arch(self) -> str:
        """The code that builds the network, as ``--arch`` takes it."""
        return f"{self.folder / CODE}:{FACTORY}"

    @property
    def images(self) -> Path:
        """The calibration images; their card is beside them."""
        return self.folder / IMAGES

    @property
    def compressed(self) -> Path:
        """Where the demo puts what it made."""
        return self.folder / COMPRESSED

    def command(self, target: str, ratio: float) -> str:
        """The command line that does the same as the demo."""
        given = ("--arch", self.arch, "--calibration", str(self.images), "--target", target)
        made = ("--ratio", f"{ratio:g}", "--threads", "1", "-o", str(self.compressed))
        return shlex.join(["edgeprune", "compress", str(self.model), *given, *made])


def write_example(place: Path, *, replace: bool, asked_by: str) -> BundledExample:
    """Put the bundled files into ``place``, which appears whole or not at all.

    Raises:
        OutputError: the folder cannot be written, or is there already.
    """
    import numpy as np

    network, images = data_dir("examples/digits"), data_dir("calibration")
    given = [network / WEIGHTS, network / CODE, images / IMAGES, images / CARD]
    with staged_output(place, overwrite=replace) as staging:
        for source in given:
            shutil.copyfile(source, staging / source.name)
        with np.load(images / IMAGES) as stored:
            np.save(staging / PICTURE, stored["images"][0])
        write_manifest(
            staging,
            inputs={source.name: sha256_file(source) for source in given},
            seed=0,
            command=asked_by,
            versions={"edgeprune": metadata.version("edgeprune")},
        )
    return BundledExample(folder=place)

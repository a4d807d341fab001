"""Put the files that others need beside a delivered model."""

from __future__ import annotations

from pathlib import Path

from edgeprune.sharing.bill_of_materials import render_bill
from edgeprune.sharing.facts import ModelFacts
from edgeprune.sharing.model_card import render_model_card
from edgeprune.storage.files import atomic_write_bytes, atomic_write_text

CARD_NAME, BILL_NAME, SCRIPT_NAME = "README.md", "bom.cdx.json", "infer.py"


def write_companions(folder: Path, facts: ModelFacts) -> None:
    """Write the model card, the bill of materials and the script that runs one image beside ``model.onnx``.

    There is no such script for a model of several inputs.

    Raises:
        OutputError: a file cannot be written.
    """
    if facts.single_image:
        atomic_write_bytes(folder / SCRIPT_NAME, Path(__file__).with_name(SCRIPT_NAME).read_bytes())
    atomic_write_text(folder / BILL_NAME, render_bill(facts, folder / "model.onnx"))
    files = [path.name for path in folder.iterdir()]
    atomic_write_text(folder / CARD_NAME, render_model_card(facts, files))

"""Import an ONNX file as a torch module."""

from edgeprune.loading.onnx_import.importing import ImportedModel, import_onnx

__all__ = ["ImportedModel", "import_onnx"]

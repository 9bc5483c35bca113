"""Trained networks as files that other programs run: ONNX, TorchScript or safetensors."""

from cdal.export.check import CheckError
from cdal.export.write import FORMATS, ExportError, export, open_export

__all__ = ["FORMATS", "CheckError", "ExportError", "export", "open_export"]

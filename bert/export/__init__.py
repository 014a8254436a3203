"""A checkpoint for other programs: as a graph for ONNX Runtime."""

from bert.export.onnx import export_onnx

__all__ = ["export_onnx"]

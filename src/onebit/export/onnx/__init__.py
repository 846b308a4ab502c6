"""ONNX models; only this folder imports `onnx`."""

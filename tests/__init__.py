"""Mirrors app/ and training/. Parts are real: ONNX Runtime, files, server processes, sockets."""

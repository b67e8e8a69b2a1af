"""The onnxruntime backend: every session lives in a child process."""

"""What runs, times or trains a model: onnxruntime and torch."""

if __name__ == "backends":
    raise ImportError("import irprune.backends")

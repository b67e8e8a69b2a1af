"""The proof that a pruned graph equals its base with the dropped channels masked."""

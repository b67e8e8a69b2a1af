"""A report with every part, whose names try to do harm."""

from __future__ import annotations

from typing import Any

EVIL = "<script>document.title = 'taken'</script>"


def triple(value: float) -> list[float]:
    return [value, value * 0.99, value * 1.01]


def full_report(groups: int = 5) -> dict[str, Any]:
    """A report of a run with a latency target; the first group is named to do harm."""
    names = [EVIL, *(f"layer{i}.weight" for i in range(1, groups))]
    widths = [(64, 64 if i % 2 else 32) for i in range(groups)]
    costs = {"params": 1000, "macs": 5000, "weight_bytes": 4000, "activation_bytes": 300}
    steps = [(0.5, 0.56, 0.85), (0.42, 0.46, 0.79), (0.45, 0.50, 0.82)]
    return {
        "irprune": "0.1.0",
        "model": {"name": "net</title>", "path": "net.onnx", "ir_version": 8, "opsets": {"": 17}},
        "pipeline": "normalize, prune{latency=0.5}, compact",
        "seed": 0,
        "before": costs,
        "after": {key: value // 2 for key, value in costs.items()},
        "inexact": {"LayerNormalization": 2},
        "passes": [{"pass": "normalize", "seconds": 0.012, "changed": {"unshared": 3}}],
        "selection": {
            "targets": {"latency": 0.5},
            "worth": "log",
            "reached": {"macs": 0.43},
            "kept_importance": 0.82,
            "optimality_gap": 0.004,
            "widths": [
                {"group": n, "width": b, "kept": a, "stairs": [16, 32, 64], "kept_importance": 0.8}
                for n, (b, a) in zip(names, widths, strict=True)
            ],
            "pareto": [{"costs": [k / 10], "worth": float(k)} for k in range(5, 12)],
            "latency": {
                "target": 0.5,
                "device": "cpu",
                "predicted": 0.45,
                "measured": triple(0.5),
                "latency_s": triple(0.0061),
                "original_s": triple(0.0123),
                "steps": [
                    {"predicted": p, "measured": triple(m), "kept_importance": k}
                    for p, m, k in steps
                ],
            },
        },
        "groups": [
            {
                "name": n,
                "before": b,
                "after": a,
                "balanced": 1,
                "producers": [{"tensor": n, "axis": 0, "node": f"conv{i} (Conv)"}],
            }
            for i, (n, (b, a)) in enumerate(zip(names, widths, strict=True))
        ],
        "layers": [
            {"name": f"{EVIL}{i} (Conv)", "creates": [i], "sums": [i - 1] if i else []}
            for i in range(groups)
        ],
        "proof": [
            {
                "claim": "compacted equals masked base",
                "verdict": "proved",
                "reason": "7 activations agree",
                "tolerance": 1e-4,
                "max_error": 2e-7,
                "worst": EVIL,
                "compared": 7,
                "seeds": 3,
                "feeds": {"x": {"shape": [1, 3, 8, 8], "dtype": "float32"}},
                "mutants": [{"weight": "w", "axis": 0, "swapped": [1, 2], "error": 0.7}],
            }
        ],
        "environment": {"python": "3.11", "cpu": "one of mine", "packages": {"onnx": "1.2"}},
    }

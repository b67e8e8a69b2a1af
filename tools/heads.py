"""Latency of transformers at half their MACs: whole heads removed, or widths within heads.

    python tools/heads.py vit_b_16 swin_t

Every network is exported from torchvision (random weights, see tools/zoo_export.py; a path to a
file works too). `normalize, prune{macs=0.5 ...}, compact` with its proof removes whole heads and
FFN widths (`heads=whole`), or widths within heads and FFN widths (`heads=inner`), without and with
the device's alignment; then all files are timed side by side. Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from balance import exported
from randomize import randomize

from irprune import api
from irprune.errors import IrpruneError

WAYS = {
    "whole heads, align=auto": "heads=whole align=auto",
    "whole heads": "heads=whole",
    "inner widths, align=auto": "heads=inner align=auto",
    "inner widths": "heads=inner",
    "inner widths, tied": "heads=inner tie=true",
}


def prune(model: api.Model, name: str, options: str, file: Path) -> str:
    """Write the pruned model; return the rest of its row."""
    pipeline = f"normalize, prune{{macs=0.5 {options}}}, compact"
    try:
        result = api.run(pipeline, model.clone())
    except IrpruneError as error:
        return f"{name:<28}{'-':>8}{'-':>8}  {error}"
    result.model.save(file)
    before, after = result.report["before"], result.report["after"]
    error = max(link["max_error"] for link in result.report["proof"])
    shares = [after[what] / before[what] for what in ("macs", "params")]
    return f"{name:<28}{shares[0]:>8.3f}{shares[1]:>8.3f}   proved, error {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="torchvision names or ONNX files")
    parser.add_argument("--rounds", type=int, default=10, help="of the latency measurement")
    parser.add_argument("--threads", type=int, default=1, help="of the latency measurement")
    arguments = parser.parse_args()
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            source = exported(name, Path(folder))
            model = api.load(source)
            randomize(model)
            print(f"{Path(name).stem}\n{'':<28}{'MACs':>8}{'params':>8}", flush=True)
            files = [source]
            for k, (way, options) in enumerate(WAYS.items()):
                file = Path(folder) / f"pruned{k}.onnx"
                print(prune(model, way, options, file), flush=True)
                files += [file] if file.exists() else []
            timing = api.BenchSettings(rounds=arguments.rounds, threads=arguments.threads)
            rows = api.bench(files, timing=timing)["models"]
            names = [
                "original",
                *(w for k, w in enumerate(WAYS) if (Path(folder) / f"pruned{k}.onnx") in files),
            ]
            for row, way in zip(rows, names, strict=True):
                print(
                    f"{way:<28}latency {row['ratio']:.3f}"
                    if row["ratio"]
                    else f"{way:<28}{row['error']}"
                )


if __name__ == "__main__":
    main()

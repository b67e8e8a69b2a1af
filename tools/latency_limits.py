"""What the floor of worth costs the fastest network of a size, by the device's model.

    python tools/latency_limits.py --zoo DIR --out docs/results/latency-limits.md

At the MACs of Torch-Pruning's results with widths rounded (`latency_rivals.py`), the predicted
latency of three choices of these MACs, relative to the original: worth most, fastest of those worth
no less than uniform pruning (`prune{macs=M latency=least}` takes it), and fastest whatever it is
worth: where the same search ends without its floor. All three are predictions of one model, to be
compared with each other; measured latencies differ from them by some per cent.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from latency_targets import log
from results import by_cpu, kept, publish

from irprune import api
from irprune.analyses import ChannelClasses, Groups
from irprune.backends.ort.device import CpuDevice
from irprune.cost import CostModel
from irprune.host import cpu
from irprune.passbase import Context
from irprune.passes.choice.budgeted import Budgeted
from irprune.passes.choice.candidates import Candidates
from irprune.passes.choice.fastest import STARTS, hastened
from irprune.passes.choice.names import Names
from irprune.passes.choice.offer import Offer
from irprune.passes.choice.overrides import Overrides
from irprune.passes.scores.reconstruction import Reconstruction

RIVALS = Path(__file__).parents[1] / "docs" / "results" / "latency-rivals.json"
NOTHING = -1e12
"""A worth that no choice falls below."""


def budgeted(file: Path, device: CpuDevice) -> Budgeted:
    """What `prune` chooses from by itself, and what the device says it costs."""
    model = api.run("normalize", api.load(file), verify=False).model
    context = Context()
    channels = context.get(ChannelClasses(), model)
    groups = context.get(Groups(), model)
    scores = Reconstruction(channels, "reconstruction", "consumers", "mean", 0)
    alive = np.ones(channels.count, np.bool_)
    offer = Offer(channels, groups, alive, scores, "layers", Names(), Overrides(), 1)
    costs = device.costs(Candidates.of(model, channels, groups, context), log)
    return Budgeted(offer, CostModel(model.ir.graph), costs, "log")


def limits(choices: Budgeted, share: float) -> tuple[float, float, float]:
    """Predicted share of the original's latency: worth most, fastest, fastest at any worth."""
    whole = choices.whole
    bound = share * whole["macs"]
    best = choices.choose({"macs": bound}, None)
    found = [choices.fastest("macs", bound, a, start) for a in (None, 1) for start in STARTS]
    made = [choice for choice in found if choice is not None]
    assert best is not None, "the fastest were found within the same bound"
    return (
        best.costs["latency"] / whole["latency"],
        min(choice.costs["latency"] for choice in made) / whole["latency"],
        min(float(hastened(choice.solution.state, NOTHING).costs[1]) for choice in made),
    )


def table(rivals: Path, zoo: Path, threads: int) -> Iterator[str]:
    """The lines of the table, and the median over the networks after them."""
    yield "| network | MACs | worth most | fastest | at any worth | / fastest |"
    yield "| --- " + "| ---: " * 5 + "|"
    device, quotients = CpuDevice.parse(f"cpu:{threads}"), []
    for (name, number), row in by_cpu(kept(rivals))[cpu()]:
        cell = row.get("rounded", {})
        if int(number) != threads or "quotient" not in cell:
            continue
        choices = budgeted(zoo / f"{name}.dynamo-static.onnx", device)
        most, fast, free = limits(choices, cell["macs"])
        quotients.append(free / fast)
        line = (
            f"| {name} | {cell['macs']:.3f} | {most:.3f} | {fast:.3f} | {free:.3f} "
            f"| {free / fast:.3f} |"
        )
        log(line)
        yield line
    yield f"\nMedian of the last column: {median(quotients):.3f}."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = os.environ.get("IRPRUNE_ZOO", "~/.cache/irprune/zoo")
    parser.add_argument("--zoo", type=Path, default=Path(home).expanduser(), metavar="DIR")
    parser.add_argument("--rivals", type=Path, default=RIVALS, metavar="FILE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the markdown here")
    args = parser.parse_args()
    lines = "\n".join(table(args.rivals, args.zoo, args.threads))
    command = f"`python tools/latency_limits.py {shlex.join(sys.argv[1:])}`"
    note = " ".join((__doc__ or "").split("\n\n", 2)[2].split())
    text = f"# What the floor of worth costs\n\n{command}\n\n{note}\n\n{lines}\n"
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

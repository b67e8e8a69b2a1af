"""The command line: one small module per command, each a thin layer over `irprune.api`."""

from __future__ import annotations

import click

from irprune import __version__
from irprune.cli.apply import apply
from irprune.cli.bench import bench
from irprune.cli.device import device
from irprune.cli.explain import explain
from irprune.cli.inspect import inspect
from irprune.cli.iterate import iterate
from irprune.cli.passes import passes
from irprune.cli.report import report
from irprune.cli.run import run
from irprune.cli.specs import specs
from irprune.cli.subspace import subspace
from irprune.cli.train import train
from irprune.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="irprune")
def main() -> None:
    """A structured-pruning compiler for ONNX models.

    Results go to stdout, progress to stderr. Exit status: 0 done; 1 a check failed; 2 bad usage or
    bad input.
    """


COMMANDS = (
    run, train, iterate, report, inspect, explain, verify, apply, bench, device, passes, subspace,
    specs,
)  # fmt: skip

for command in COMMANDS:
    main.add_command(command)

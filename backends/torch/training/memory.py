"""When memory runs out: less at a time, or a refusal that says what did not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from irprune.errors import IrpruneError


@contextmanager
def memory_for(what: str, mend: str, file: str | None = None) -> Iterator[None]:
    """Raise IrpruneError, naming what did not fit, where memory runs out inside."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise IrpruneError(f"{what} does not fit into memory", file=file, mend=mend) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def halved(size: int, processes: int, mend: str, error: RuntimeError) -> int:
    """Return half of as many examples as did not fit.

    Args:
        size: examples that were taken at once.
        processes: how many work together; they must take the same steps, so they cannot halve.
        mend: what to do where several processes run out of memory.
        error: what said so.

    Raises:
        IrpruneError: one example does not fit, or there are several processes.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if size == 1:
        reason = "not even one example fits into memory"
        raise IrpruneError(reason, mend="take a smaller network or input") from error
    if processes > 1:
        reason = "the batch does not fit into the memory of a device"
        raise IrpruneError(reason, mend=mend) from error
    return -(-size // 2)

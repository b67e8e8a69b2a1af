"""What a page shows: plain data, absent parts None or empty."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One cost before and after."""

    key: str
    name: str
    unit: str
    before: float
    after: float

    @property
    def kept(self) -> float:
        """The fraction that is left; 1 where there was nothing."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trial:
    """A choice that was measured beside the original, or failed to run."""

    predicted: float
    ratio: Estimate | None
    importance: float
    error: str | None


@dataclass(frozen=True)
class Latency:
    """The measured latency as a fraction of the original's, and how it was found."""

    ratio: Estimate | None
    seconds: Estimate | None
    before: Estimate | None
    """Seconds of the original, measured beside it."""
    predicted: float | None
    trials: tuple[Trial, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Group:
    """A coupled group: its width before and after, and what it ties."""

    index: int
    name: str
    before: int
    after: int
    balanced: int
    stairs: tuple[int, ...]
    """Useful widths of the device, ascending; empty where nothing is known of them."""
    importance: float | None
    """Fraction of the importance that stays."""
    producers: tuple[tuple[str, int, str], ...]
    """Tensor, axis and node of each parameter that creates the channels."""

    @property
    def kept(self) -> float:
        """The fraction of the width that stays."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True)
class Layer:
    """A layer, the groups that it creates and those that it sums away."""

    name: str
    creates: tuple[int, ...]
    sums: tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """How widths were chosen under bounds."""

    importance: float | None
    """Fraction of the importance that is kept."""
    gap: float | None
    """How much more the best choice could keep at most, as a fraction of the range."""
    cost: str
    """The first bound, which `path` tells about."""
    worth: str
    path: tuple[tuple[float, float], ...]
    """Choices that the solver passed: the first cost as a fraction of its bound, and worth."""
    latency: Latency | None
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Mutant:
    """A deliberate mistake that the comparison had to notice, and by how much it was off."""

    what: str
    error: float | None


@dataclass(frozen=True)
class Proof:
    """A claim, the verdict, and what it stands on."""

    claim: str
    verdict: str
    reason: str
    tolerance: float
    error: float | None
    worst: str | None
    compared: int
    seeds: int
    feeds: tuple[tuple[str, str], ...]
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True)
class Step:
    """A pass that ran."""

    text: str
    seconds: float
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    version: str
    model: str
    path: str | None
    facts: tuple[tuple[str, str], ...]
    pipeline: str
    costs: tuple[Cost, ...]
    inexact: tuple[tuple[str, str], ...]
    selection: Selection | None
    groups: tuple[Group, ...]
    align: int | None
    layers: tuple[Layer, ...]
    proofs: tuple[Proof, ...]
    steps: tuple[Step, ...]
    environment: tuple[tuple[str, str], ...]

    @property
    def latency(self) -> Latency | None:
        """What was measured."""
        return None if self.selection is None else self.selection.latency

    @property
    def verdict(self) -> str:
        """The least of the verdicts; `not proved` where nothing was proved."""
        found = {proof.verdict for proof in self.proofs}
        return next((v for v in ("failed", "inconclusive", "proved") if v in found), "not proved")

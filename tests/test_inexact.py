"""The policy on inexact ops: what it may name, what it frees, and what was passed."""

from __future__ import annotations

import pytest
from norm_nets import FORMS, NormNet
from strategies import ties, why

from irprune.analyses import ChannelClasses, Groups
from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.inexact import checked, names, passed
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Plan


def _fused(opset: int = 17) -> Model:
    """A LayerNormalization and a Softmax over four channels each."""
    net = NormNet(opset)
    x = net.tokens(4, "N")
    x = net.op("LayerNormalization", x, net.weight(4, name="scale"), name="c")
    net.op("Softmax", net.linear(x, 4, 4, "q"), name="s")
    net.consume("s", 3, -1, 4)
    return net.model()


def _written_out(kind: str, form: str) -> Model:
    net = NormNet()
    net.written_out(kind, form, net.tokens(4, "N"), -1, 3, 4)
    net.consume("c", 3, -1, 4)
    return net.model()


def _free(model: Model, allow: tuple[str, ...], name: str = "p.w", axis: int = 1) -> bool:
    (row,) = ties(model, (name, axis), channels=analyse(model.ir.graph, "inner", allow))
    return all(row)


def test_names_are_ops_with_statistics_and_norms() -> None:
    assert names()[0] == "inexact"
    assert {"LayerNormalization", "Softmax", "LRN", "ReduceMean", "LpNormalization"} <= {*names()}
    assert not {"ReduceSum", "BatchNormalization", "ArgMax", "ConvTranspose"} & {*names()}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(IrpruneError, match=r"allow=layernorm: .*known: inexact, .*, Softmax"):
        checked(["Softmax", "layernorm"])
    with pytest.raises(IrpruneError, match="allow=ConvTranspose"):
        analyse(_fused().ir.graph, "inner", ("ConvTranspose",))


def test_by_default_statistics_pin_with_the_reason() -> None:
    model = _fused()
    reason = "is normalised by LayerNormalization at c.LayerNormalization (LayerNormalization)"
    assert why(model, "p.w", 1) == why(model, "scale", 0) == reason
    assert why(model, "q.w", 1) == "is normalised by Softmax at s.Softmax (Softmax)"


def test_each_op_is_allowed_by_its_name() -> None:
    model = _fused()
    for allow, norm, softmax in [
        (("LayerNormalization",), True, False),
        (("Softmax",), False, True),
        (("Softmax", "LayerNormalization"), True, True),
        (("inexact",), True, True),
        (("RMSNormalization",), False, False),
    ]:
        assert (_free(model, allow), _free(model, allow, "q.w")) == (norm, softmax), allow


@pytest.mark.parametrize(("kind", "form"), [(k, f) for k, forms in FORMS.items() for f in forms])
def test_norms_of_several_nodes_obey_their_name(kind: str, form: str) -> None:
    model = _written_out(kind, form)
    assert f" of a {kind} at " in why(model, "p.w", 1)
    others = tuple(name for name in FORMS if name != kind)
    assert not _free(model, others)
    assert _free(model, (kind,))
    assert _free(model, ("inexact",))


def test_a_single_statistic_is_allowed_by_its_op() -> None:
    net = NormNet()
    net.op("Mul", net.image(4), net.op("Sigmoid", net.reduce("ReduceMean", "p", 1)), name="c")
    net.consume("c", 4, 1, 4)
    model = net.model()
    assert why(model, "p.w", 0).startswith("takes part in the statistic ReduceMean at ")
    assert not _free(model, ("LayerNormalization",), "p.w", 0)
    assert _free(model, ("ReduceMean",), "p.w", 0)


def test_analyses_are_cached_by_policy() -> None:
    model, context = _fused(), Context()
    exact, free = (context.get(ChannelClasses(allow=a), model) for a in ((), ("inexact",)))
    assert exact is not free
    assert context.get(ChannelClasses("inner", ("inexact",)), model) is free
    counts = [len(context.get(Groups(allow=a), model)) for a in ((), ("inexact",))]
    assert counts == [0, 2]


def test_what_a_plan_passes_is_counted_by_name() -> None:
    model = _written_out("LayerNormalization", "pow-div")
    channels = analyse(model.ir.graph, "inner", ("inexact",))
    keep = channels.keep_of(Plan())
    assert passed(model.ir.graph, channels.plan(keep)) == {}
    keep[channels.of(model.ir.graph.initializers["p.w"])[1][0]] = False
    assert passed(model.ir.graph, channels.plan(keep)) == {"LayerNormalization": 1}

"""Shapes that stay dynamic: pruned models take every size that their originals take.

Each network is written with symbolic dimensions and computes shapes from them. It is pruned once,
and proved at several sizes: the normalised base against the original, the compacted graph against
the masked base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from irprune import api
from irprune.backends.ort.runner import OrtRunner
from irprune.model import Model
from irprune.passbase import Context
from irprune.pipeline.manager import run_passes
from irprune.plan import Plan
from irprune.proof.prover import prove
from irprune.queries import constant_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A graph in text; its inputs named w... become random weights.

    `loses` names weights and the axis on which each must lose channels.
    """

    text: str
    sizes: Sequence[dict[str, Shape]]
    loses: Sequence[tuple[str, int]]
    opset: int = 17

    def original(self, named: bool = True) -> Model:
        """The network with random weights; dimensions may be unnamed as well."""
        proto = weighted(self.text, self.opset)
        for info in () if named else (*proto.graph.input, *proto.graph.output):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.ClearField("dim_param")
        return Model.from_proto(proto)


def weighted(text: str, opset: int) -> ModelProto:
    """Return the model of a graph in text, with random weights for its inputs named w...."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    random = np.random.default_rng(5)
    for value in [v for v in proto.graph.input if v.name.startswith("w")]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = random.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    return proto


IMAGES = [{"x": (n, 3, h, w)} for n, h, w in ((1, 8, 8), (3, 9, 7), (2, 13, 16))]
TOKENS = [{"x": (n, t, 4)} for n, t in ((1, 1), (3, 5), (2, 12))]

CASES = {
    "channel shuffle: C / groups is computed from Shape": Case(
        """g (float[N, 3, H, W] x, float[12, 3, 3, 3] wa, float[12, 3, 3, 3] wb,
              float[2, 12, 1, 1] wc) => (float[N, 2, H2, W2] y)
        <int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3}, int64 g = {4},
         int64[1] z = {0}, int64[1] g1 = {4}> {
            a0 = Conv<pads = [1, 1, 1, 1]>(x, wa)
            a = Relu(a0)
            b = Conv<pads = [1, 1, 1, 1], strides = [2, 2], group = 4>(a, wb)
            s = Shape(b)
            n = Gather(s, i0)
            c = Gather(s, i1)
            h = Gather(s, i2)
            w_ = Gather(s, i3)
            k = Div(c, g)
            n1 = Unsqueeze(n, z)
            c1 = Unsqueeze(c, z)
            h1 = Unsqueeze(h, z)
            w1 = Unsqueeze(w_, z)
            k1 = Unsqueeze(k, z)
            t1 = Concat<axis = 0>(n1, g1, k1, h1, w1)
            r1 = Reshape(b, t1)
            p = Transpose<perm = [0, 2, 1, 3, 4]>(r1)
            t2 = Concat<axis = 0>(n1, c1, h1, w1)
            r2 = Reshape(p, t2)
            y = Conv(r2, wc)
        }""",
        IMAGES,
        [("wa", 0), ("wb", 0), ("wc", 1)],
    ),
    "U-Net: upsample to the size of the skip, pad by the difference": Case(
        """g (float[N, 3, H, W] x, float[8, 3, 3, 3] wa, float[10, 8, 3, 3] wb,
              float[10, 6, 2, 2] wu, float[2, 24, 1, 1] wc) => (float[N, 2, H, W] y)
        <int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] i4 = {4}, int64[4] z = {0, 0, 0, 0},
         int64[2] z2 = {0, 0}, int64[1] i0 = {0}, float[0] empty = {}> {
            a = Conv<pads = [1, 1, 1, 1]>(x, wa)
            d = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
            b = Conv<pads = [1, 1, 1, 1]>(d, wb)
            sa = Shape(a)
            sb = Shape(b)
            size = Slice(sa, i2, i4, i0)
            head = Slice(sb, i0, i2, i0)
            sizes = Concat<axis = 0>(head, size)
            r = Resize<mode = "linear">(b, empty, empty, sizes)
            u = ConvTranspose<strides = [2, 2]>(b, wu)
            su = Shape(u)
            usize = Slice(su, i2, i4, i0)
            more = Sub(size, usize)
            pads = Concat<axis = 0>(z, z2, more)
            v = Pad(u, pads)
            cat = Concat<axis = 1>(a, r, v)
            y = Conv(cat, wc)
        }""",
        IMAGES,
        [("wa", 0), ("wb", 0), ("wu", 1), ("wc", 1)],
        opset=13,
    ),
    "segmentation before sizes: the scales of Upsample are computed": Case(
        """g (float[N, 3, H, W] x, float[8, 3, 3, 3] wa, float[2, 8, 1, 1] wc)
            => (float[N, 2, H, W] y)
        <int64[2] hw = {2, 3}, float[2] ones = {1, 1}> {
            a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, wa)
            sx = Shape(x)
            sa = Shape(a)
            bx = Gather(sx, hw)
            ba = Gather(sa, hw)
            fx = Cast<to = 1>(bx)
            fa = Cast<to = 1>(ba)
            ratio = Div(fx, fa)
            scales = Concat<axis = 0>(ones, ratio)
            u = Upsample<mode = "nearest">(a, scales)
            y = Conv(u, wc)
        }""",
        [{"x": (n, 3, h, w)} for n, h, w in ((1, 8, 8), (3, 6, 10), (2, 12, 16))],
        [("wa", 0), ("wc", 1)],
        opset=9,
    ),
    "crop: channels by constants and rows by a length in one Slice": Case(
        """g (float[N, 3, H, W] x, float[8, 3, 3, 3] wa, float[2, 7, 1, 1] wc)
            => (float[N, 2, H2, W2] y)
        <int64[1] i2 = {2}, int64[1] i0 = {0}, int64[1] two = {2}, int64[2] starts = {1, 0},
         int64[1] end = {8}, int64[2] axes = {1, 2}> {
            a = Conv(x, wa)
            s = Shape(x)
            h = Gather(s, i2)
            half = Div(h, two)
            ends = Concat<axis = 0>(end, half)
            c = Slice(a, starts, ends, axes)
            y = Conv(c, wc)
        }""",
        IMAGES,
        [("wa", 0), ("wc", 1)],
    ),
    "squeeze and excitation: Expand to the shape of the data": Case(
        """g (float[N, 3, H, W] x, float[8, 3, 3, 3] wa, float[8, 8] wg, float[2, 8, 1, 1] wc)
            => (float[N, 2, H2, W2] y)
        <int64[1] m = {-1}, int64[1] one = {1}, int64[1] i0 = {0}, int64[1] i2 = {2}> {
            a = Conv(x, wa)
            p = GlobalAveragePool(a)
            sp = Shape(p)
            nc = Slice(sp, i0, i2, i0)
            f = Reshape(p, nc)
            q = Gemm(f, wg)
            tq = Concat<axis = 0>(nc, one, one)
            e = Reshape(q, tq)
            s = Shape(a)
            g0 = Expand(e, s)
            g1 = Sigmoid(g0)
            t = Mul(a, g1)
            y = Conv(t, wc)
        }""",
        IMAGES,
        [("wa", 0), ("wg", 0), ("wg", 1), ("wc", 1)],
    ),
    "attention: heads beside the batch, the scale from Shape": Case(
        """g (float[N, T, 4] x, float[4, 24] wq, float[4, 24] wk, float[4, 24] wv, float[24, 3] wo)
            => (float[N, T, 3] y)
        <int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 h = {3}, int64 d8 = {8},
         int64[1] z = {0}> {
            q0 = MatMul(x, wq)
            k0 = MatMul(x, wk)
            v0 = MatMul(x, wv)
            s = Shape(q0)
            n = Gather(s, i0)
            t = Gather(s, i1)
            c = Gather(s, i2)
            d = Div(c, h)
            nh = Mul(n, h)
            n1 = Unsqueeze(n, z)
            nh1 = Unsqueeze(nh, z)
            t1 = Unsqueeze(t, z)
            c1 = Unsqueeze(c, z)
            d1 = Unsqueeze(d, z)
            tn = Concat<axis = 0>(t1, nh1, d1)
            qt = Transpose<perm = [1, 0, 2]>(q0)
            kt = Transpose<perm = [1, 0, 2]>(k0)
            vt = Transpose<perm = [1, 0, 2]>(v0)
            qh = Reshape(qt, tn)
            kh = Reshape(kt, tn)
            vh = Reshape(vt, tn)
            q = Transpose<perm = [1, 0, 2]>(qh)
            k = Transpose<perm = [1, 2, 0]>(kh)
            v = Transpose<perm = [1, 0, 2]>(vh)
            a0 = MatMul(q, k)
            df = Cast<to = 1>(d)
            root = Sqrt(df)
            a1 = Div(a0, root)
            a = Softmax<axis = -1>(a1)
            o0 = MatMul(a, v)
            ot = Transpose<perm = [1, 0, 2]>(o0)
            back = Concat<axis = 0>(t1, n1, c1)
            o1 = Reshape(ot, back)
            o = Transpose<perm = [1, 0, 2]>(o1)
            y = MatMul(o, wo)
        }""",
        TOKENS,
        [("wq", 1), ("wk", 1), ("wv", 1), ("wo", 0)],
    ),
    "sequence: positions by Range and Slice, ConstantOfShape, Tile": Case(
        """g (float[N, T, 4] x, float[4, 10] wa, float[16, 10] wp, float[1, 16, 10] wq,
              float[1, 1, 10] wt, float[10, 3] wo) => (float[N, T, 3] y)
        <int64 i0 = {0}, int64 i1 = {1}, int64[1] a0 = {0}, int64[1] a1 = {1}, int64 one = {1},
         int64[1] ten = {10}> {
            a = MatMul(x, wa)
            s = Shape(a)
            n = Gather(s, i0)
            t = Gather(s, i1)
            n1 = Unsqueeze(n, a0)
            t1 = Unsqueeze(t, a0)
            steps = Range(i0, t, one)
            p = Gather(wp, steps)
            q = Slice(wq, a0, t1, a1)
            shape = Concat<axis = 0>(n1, t1, ten)
            zeros = ConstantOfShape<value = float[1] {0.5}>(shape)
            times = Concat<axis = 0>(n1, t1, a1)
            tiled = Tile(wt, times)
            b0 = Add(a, p)
            b1 = Add(b0, q)
            b2 = Add(b1, zeros)
            b3 = Mul(b2, tiled)
            y = MatMul(b3, wo)
        }""",
        TOKENS,
        [("wa", 1), ("wp", 1), ("wq", 2), ("wt", 2), ("wo", 0)],
    ),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[OrtRunner]:
    with OrtRunner() as runner:
        yield runner


def _pruned(model: Model, runner: OrtRunner) -> Model:
    work = model.clone()
    passes = api.resolve_pipeline("normalize, prune{ratio=0.4 scope=local}, compact")
    run_passes(passes, work, Context(runner=lambda: runner))
    return work


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("name", CASES)
def test_the_pruned_network_is_proved_at_every_size(
    name: str, named: bool, runner: OrtRunner
) -> None:
    case = CASES[name]
    original = case.original(named)
    small = _pruned(original, runner)
    assert small.base is not None and small.plan is not None
    for weight, axis in case.loses:
        assert axis in small.plan.axes.get(weight, {}), f"{weight} keeps axis {axis}"
    for sizes in case.sizes:
        context = Context(runner=lambda: runner, shapes=sizes)
        same = prove(original.ir, small.base, Plan.empty(), context)
        assert same.verdict == "proved", (sizes, same)
        proof = prove(small.base, small.ir, small.plan, context)
        assert proof.verdict == "proved", (sizes, proof)


def test_a_scale_made_of_a_channel_count_keeps_the_original_number(runner: OrtRunner) -> None:
    small = _pruned(
        CASES["attention: heads beside the batch, the scale from Shape"].original(), runner
    )
    (division,) = [n for n in small.ir.graph if n.op_type == "Div"]
    assert constant_of(division.inputs[1]) == np.float32(np.sqrt(8))
    assert small.plan is not None and not small.plan.axes["wq"][1].all()

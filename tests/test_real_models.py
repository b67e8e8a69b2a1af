"""Every shared real model: pruned and proved, or refused with what stands in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from irprune import api
from irprune.errors import CheckFailed, IrpruneError

PIPELINE = "normalize, prune{ratio=0.4 scope=local}, compact"
PRUNED = (
    *("FastestDet", "basic_pitch_nmp", "ch_PP-OCRv3_det_infer", "ch_ppocr_mobile_v2.0_cls_infer"),
    *("fsanet-1x1-iter-688590", "gtcrn_simple", "keypoint_classifier", "light_resnet50"),
    *("magika_standard_v2_1", "mnist_cntk", "mobilenetv2_imagenet", "nanodet_m_416"),
    *("person_det_yolox_nano", "resnet20_cifar10", "resnet56_cifar10", "samplenet"),
    *("silero_vad_16k_op15", "squeezenet_v1.0_imagenet", "unet_sedgen", "unitree_g1_policy"),
    *("version-RFB-320", "version-slim-320_simplified", "yunet_n_320_320"),
)
REFUSED = {
    "dtln_model_1": "no rule for this op at .*LSTM",
    "silero_vad": "control flow bodies are not analysed",
    "superresolution_prepost_op18": "no rule for this op at .*DecodeImage",
    "tract_byte_sb_bidi_lstm": "no rule for this op at .*LSTM",
}
DEGENERATE = ("light_inception_v1", "light_shufflenet")
"""Their weights are constants: a proof of anything about them would say nothing."""


def _load(shared: Path, name: str) -> api.Model:
    return api.load(shared / "models" / "onnx" / f"{name}.onnx")


@pytest.mark.shared
@pytest.mark.parametrize("name", PRUNED)
def test_pruned_and_proved(shared: Path, name: str) -> None:
    report = api.run(PIPELINE, _load(shared, name)).report
    assert [link["verdict"] for link in report["proof"]] == ["proved", "proved"]
    assert report["after"]["params"] <= report["before"]["params"]
    assert report["after"]["macs"] < report["before"]["macs"]


@pytest.mark.shared
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(shared: Path, name: str) -> None:
    with pytest.raises(IrpruneError, match=REFUSED[name]) as refusal:
        api.run(PIPELINE, _load(shared, name))
    assert refusal.value.exit_code == 2


@pytest.mark.shared
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_weights_prove_nothing(shared: Path, name: str) -> None:
    with pytest.raises(CheckFailed, match="inconclusive"):
        api.run(PIPELINE, _load(shared, name))


@pytest.mark.shared
def test_no_model_is_forgotten(shared: Path) -> None:
    files = {path.stem for path in (shared / "models" / "onnx").glob("*.onnx")}
    assert files == {*PRUNED, *REFUSED, *DEGENERATE}

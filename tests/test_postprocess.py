"""Selection and suppression against the authors' code (v2) and mmdet 3 (v3), box by box."""

from dataclasses import replace

import pytest
import torch
from recorded import Recording, close

from vfnet_edu.boxes import ltrb_to_xyxy
from vfnet_edu.models.layers import flatten_levels
from vfnet_edu.postprocess import Candidates, DetectConfig, select, soft_nms, suppress
from vfnet_edu.priors import grid_points

POST, NMS = Recording("postproc"), Recording("nms")
STRIDES = (8, 16, 32, 64, 128)
CASES = {
    "nms": DetectConfig(),
    "nms_rescale": DetectConfig(),
    "nms_pre50": DetectConfig(top_per_level=50),
    "max10": DetectConfig(max_detections=10),
    "soft_nms": DetectConfig(nms="linear", nms_iou=0.65),
    "soft_nms_min005": DetectConfig(nms="linear", nms_iou=0.65, soft_min_score=0.05),
    "soft_nms_gaussian": DetectConfig(nms="gaussian", nms_iou=0.65),
    "nothing": DetectConfig(min_score=0.999),
}


def candidates():
    cls, ltrb = POST.levels("cls"), POST.levels("bbox")
    shapes = [tuple(x.shape[-2:]) for x in cls]
    points = torch.cat([grid_points(hw, s) for hw, s in zip(shapes, STRIDES, strict=True)])
    boxes = ltrb_to_xyxy(points, flatten_levels(ltrb, 4))
    return Candidates(flatten_levels(cls, 6).sigmoid(), boxes, [h * w for h, w in shapes])


@pytest.mark.parametrize("topk, version", [("locations", "v2"), ("pairs", "v3")])
@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_select(case, image, topk, version):
    names = [f"{case}_{what}_{image}" for what in ("boxes", "scores", "labels")]
    if case == "soft_nms_gaussian" and (image, version) == (1, "v2"):
        pytest.skip("v2 divides 0 by 0 for boxes without area; ours calls them disjoint")
    size = tuple(POST["img_shapes"][image].tolist())
    scale = float(POST["scale_factors"][image]) if case == "nms_rescale" else 1.0
    found = select(candidates(), image, size, replace(CASES[case], topk=topk), (scale, scale))
    boxes, scores, labels = (POST.get(n, version) for n in names)
    assert torch.equal(found.labels, labels)
    close(found.scores, scores, rtol=1e-5)
    close(found.boxes, boxes, atol=1e-3)


@pytest.mark.parametrize("iou", ["0.3", "0.5", "0.6", "0.65"])
def test_hard_nms(iou):
    config = DetectConfig(nms_iou=float(iou), max_detections=1000)
    for name, labels in (("nms", torch.zeros_like(NMS["labels"])), ("batched_nms", NMS["labels"])):
        keep = NMS[f"{name}_{iou}_keep"]
        found = suppress(NMS["boxes"], NMS["scores"], labels, config)
        close(found.boxes, NMS["boxes"][keep])
        close(found.scores, NMS["scores"][keep])


@pytest.mark.parametrize("iou", ["0.3", "0.5", "0.6", "0.65"])
@pytest.mark.parametrize("floor", ["0.001", "0.05"])
@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_soft_nms(method, floor, iou):
    one_class = torch.zeros_like(NMS["labels"])
    scores, keep = soft_nms(NMS["boxes"], NMS["scores"], one_class, float(iou), method, 0.5, float(floor))
    assert torch.equal(keep, NMS[f"soft_{method}_{iou}_{floor}_keep"])
    close(scores, NMS[f"soft_{method}_{iou}_{floor}_dets"][:, 4], rtol=1e-4)


def test_no_limit_and_no_candidates():
    every = candidates()
    unlimited = select(every, 0, (128, 160), DetectConfig(top_per_level=0))
    assert torch.equal(unlimited.labels, POST["nms_labels_0"])
    for topk in ("locations", "pairs"):
        nothing = select(every, 0, (128, 160), DetectConfig(min_score=1.0, topk=topk, nms="linear"))
        assert nothing.boxes.shape == (0, 4) and nothing.scores.shape == nothing.labels.shape == (0,)

"""The VFNet head alone (32 -> 64 channels, 2 convolutions, 6 classes) against the authors' code: outputs, losses, gradients."""

from dataclasses import replace

import pytest
import torch
from recorded import Recording, close, dot, restore

from vfnet_edu.boxes import ltrb_to_xyxy
from vfnet_edu.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.layers import flatten_levels
from vfnet_edu.priors import grid_points
from vfnet_edu.weights import from_mmdet, to_mmdet

REC = Recording("vfnet_head")
CONFIG = VFNetConfig(classes=6, channels=64, depth=2)
SIZES = [(128, 160), (90, 120)]
LOSSES = {"loss_cls": "cls", "loss_bbox": "box", "loss_bbox_rf": "refine"}
BATCHES = ["both", "second_empty", "none"]


def build(config=CONFIG):
    head = VFNetHead(config, in_channels=32)
    theirs = restore({n.removeprefix("param."): REC[n] for n in REC.names if n.startswith("param.")})
    state = {k.removeprefix("head."): v for k, v in from_mmdet(theirs).items()}
    head.load_state_dict(state)
    return head


def run(head, requires_grad=False):
    features = [f.clone().requires_grad_(requires_grad) for f in REC.levels("feat")]
    return features, head(features)


def targets(batch):
    return [{"boxes": REC[f"{batch}_gt_boxes_{i}"], "labels": REC[f"{batch}_gt_labels_{i}"]} for i in range(2)]


def grads(head):
    """Under the authors' names."""
    ours = {f"head.{n}": p.grad for n, p in head.named_parameters()}
    return {k.removeprefix("bbox_head."): v for k, v in to_mmdet(ours).items()}


def as_recorded(prefix=""):
    """The recorded maps in the head's own layout: one row per point."""
    cls, initial, refined = (REC.levels(prefix + n) for n in ("cls", "bbox", "bbox_refine"))
    points = torch.cat(
        [grid_points(tuple(x.shape[-2:]), s) for x, s in zip(cls, (8, 16, 32, 64, 128), strict=True)]
    )
    return (
        flatten_levels(cls, 6),
        ltrb_to_xyxy(points, flatten_levels(initial, 4)),
        ltrb_to_xyxy(points, flatten_levels(refined, 4)),
    )


@pytest.mark.parametrize("prefix, unit", [("", 8.0), ("normstride_", 1.0)])
def test_outputs(prefix, unit, one_thread):
    _, out = run(build(replace(CONFIG, box_unit=unit)))
    logits, boxes, refined = as_recorded(prefix)
    close(out.logits, logits, atol=4e-5)
    close(out.boxes, boxes, atol=2e-3)
    close(out.refined, refined, atol=2e-3)


@pytest.mark.parametrize("batch", BATCHES)
def test_losses_and_every_gradient(batch, one_thread):
    head = build()
    features, out = run(head, requires_grad=True)
    losses = head.loss(out, targets(batch), SIZES)
    for theirs, ours in LOSSES.items():
        close(losses[ours], REC[f"{batch}_{theirs}"])
    total = sum(losses.values())
    close(total, REC[f"{batch}_total"])
    total.backward()
    found, names = grads(head), REC.text("param_names")
    assert set(found) == set(names)
    norms, dots = REC[f"{batch}_grad_norm"], REC[f"{batch}_grad_dot"]
    for i, name in enumerate(names):
        floor = 1e-4 * norms.max()
        close(found[name].norm(), norms[i], rtol=1e-3, atol=1e-5 * floor + 1e-7)
        assert abs(dot(found[name], name) - float(dots[i])) <= 2e-3 * float(norms[i]) + 1e-6, name
    if batch == "second_empty":
        for level, feature in enumerate(features):
            expected = REC[f"second_empty_grad_feat_{level}"]
            close(feature.grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        for name in names:
            expected = REC[f"second_empty_grad.{name}"]
            close(found[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-8)


@pytest.mark.parametrize("batch", BATCHES)
def test_focal_loss_instead(batch, one_thread):
    head = build(replace(CONFIG, loss="focal", alpha=0.25))
    _, out = run(head)
    losses = head.loss(out, targets(batch), SIZES)
    for theirs, ours in LOSSES.items():
        close(losses[ours], REC[f"focal_{batch}_{theirs}"])


def test_star_gradient_is_a_tenth():
    """The refinement reaches the initial box only through the star, times gradient_mul (paper, section 3.3)."""
    norms = []
    for share in (0.1, 1.0, 0.0):
        head = build(replace(CONFIG, star_gradient=share))
        _, out = run(head)
        out.refined.sum().backward()
        norms.append(head.box_out.weight.grad)
    close(norms[0], norms[1] * 0.1, rtol=1e-4, atol=1e-3)
    assert norms[1].abs().sum() > 0 and norms[2].abs().sum() == 0


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"star": False, "refine": False, "box_weight": 2.0}, {"cls", "box"}),
        ({"refine": False, "box_weight": 2.0}, {"cls", "box"}),
        ({"star": False}, {"cls", "box", "refine"}),
        ({"loss": "quality_focal"}, {"cls", "box", "refine"}),
        ({"iou_weighted": False}, {"cls", "box", "refine"}),
    ],
)
def test_ablations_train(changes, names):
    head = VFNetHead(replace(CONFIG, **changes), in_channels=32)
    features = REC.levels("feat")
    losses = head.loss(head(features), targets("both"), SIZES)
    assert set(losses) == names
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

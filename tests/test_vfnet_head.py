"""The VFNet head alone (32 -> 64 channels, 2 convolutions, 6 classes) against the authors' code, gradients included."""

from dataclasses import replace

import pytest
from recorded import FOLDER, Recording, close, dot, restore

from vfnet_edu.boxes import ltrb_to_xyxy
from vfnet_edu.models.heads.vfnet import VFNetConfig, VFNetHead
from vfnet_edu.models.layers import flatten_levels
from vfnet_edu.priors import pyramid_points
from vfnet_edu.weights.mmdet import from_mmdet, to_mmdet

RECS = {n == "vfnet_head_dcn": Recording(n) for n in ("vfnet_head", "vfnet_head_dcn") if (FOLDER / f"{n}.npz").exists()}
REC = RECS[False]
CONFIG = VFNetConfig(classes=6, channels=64, depth=2)
SIZES = [(128, 160), (90, 120)]
LOSSES = {"loss_cls": "cls", "loss_bbox": "box", "loss_bbox_rf": "refine"}
BATCHES = ["both", "second_empty", "none"]


def build(config=CONFIG):
    head = VFNetHead(config, in_channels=32)
    rec = RECS[config.dcn]
    theirs = restore({n.removeprefix("param."): rec[n] for n in rec.names if n.startswith("param.")})
    state = {k.removeprefix("head."): v for k, v in from_mmdet(theirs).items()}
    head.load_state_dict(state)
    return head


def run(head, requires_grad=False):
    features = [f.clone().requires_grad_(requires_grad) for f in RECS[head.config.dcn].levels("feat")]
    return features, head(features)


def targets(batch):
    return [{"boxes": REC[f"{batch}_gt_boxes_{i}"], "labels": REC[f"{batch}_gt_labels_{i}"]} for i in range(2)]


def grads(head):
    """Under the authors' names."""
    ours = {f"head.{n}": p.grad for n, p in head.named_parameters()}
    return {k.removeprefix("bbox_head."): v for k, v in to_mmdet(ours).items()}


def as_recorded(rec, prefix):
    """The recorded maps in the head's own layout: one row per point."""
    cls, initial, refined = (rec.levels(prefix + n) for n in ("cls", "bbox", "bbox_refine"))
    points = pyramid_points([tuple(x.shape[-2:]) for x in cls], (8, 16, 32, 64, 128))
    return (
        flatten_levels(cls, 6),
        ltrb_to_xyxy(points, flatten_levels(initial, 4)),
        ltrb_to_xyxy(points, flatten_levels(refined, 4)),
    )


@pytest.mark.parametrize("prefix, unit, dcn", [("normstride_", 1.0, False)] + [("", 8.0, dcn) for dcn in RECS])
def test_outputs(prefix, unit, dcn, one_thread):
    _, out = run(build(replace(CONFIG, box_unit=unit, dcn=dcn)))
    logits, boxes, refined = as_recorded(RECS[dcn], prefix)
    close(out.logits, logits, atol=4e-5)
    close(out.boxes, boxes, atol=2e-3)
    close(out.refined, refined, atol=2e-3)


@pytest.mark.parametrize("dcn", RECS)
@pytest.mark.parametrize("batch", BATCHES)
def test_losses_and_every_gradient(batch, dcn, one_thread):
    head, rec = build(replace(CONFIG, dcn=dcn)), RECS[dcn]
    features, out = run(head, requires_grad=True)
    losses = head.loss(out, targets(batch), SIZES)
    for theirs, ours in LOSSES.items():
        close(losses[ours], rec[f"{batch}_{theirs}"])
    total = sum(losses.values())
    close(total, rec[f"{batch}_total"])
    total.backward()
    found, names = grads(head), rec.text("param_names")
    assert set(found) == set(names)
    norms, dots = rec[f"{batch}_grad_norm"], rec[f"{batch}_grad_dot"]
    for i, name in enumerate(names):
        floor = 1e-4 * norms.max()
        close(found[name].norm(), norms[i], rtol=1e-3, atol=1e-5 * floor + 1e-7)
        assert abs(dot(found[name], name) - float(dots[i])) <= 2e-3 * float(norms[i]) + 1e-6, name
    if batch == "second_empty":
        for level, feature in enumerate(features):
            expected = rec[f"second_empty_grad_feat_{level}"]
            close(feature.grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        for name in [n for n in names if f"second_empty_grad.{n}" in rec]:
            expected = rec[f"second_empty_grad.{name}"]
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

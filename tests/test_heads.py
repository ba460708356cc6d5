"""The heads other than VarifocalNet's: how each is wired to the two losses, and that all learn.

Their numbers are held against the authors' in test_detector.py.
"""

from dataclasses import replace

import pytest
import torch
from recorded import close

from vfnet_edu import recipes
from vfnet_edu.assigners import IGNORED, atss, fovea, max_iou
from vfnet_edu.boxes import clip, iou, ltrb_to_xyxy
from vfnet_edu.losses import focal_loss, varifocal_loss
from vfnet_edu.models.backbones.resnet import ResNetConfig
from vfnet_edu.models.detector import build
from vfnet_edu.models.heads.atss import ATSSConfig, ATSSHead, ATSSOutput
from vfnet_edu.models.heads.foveabox import FoveaBoxConfig, FoveaBoxHead, FoveaBoxOutput
from vfnet_edu.models.heads.reppoints import RepPointsConfig, RepPointsHead, RepPointsOutput
from vfnet_edu.models.heads.retinanet import RetinaNetConfig, RetinaNetHead, RetinaNetOutput
from vfnet_edu.priors import per_point, pyramid_anchors, pyramid_points

STRIDES = (8, 16, 32, 64, 128)
SHAPES = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]  # a batch of 64 x 64 pixels
SIZES = [(64, 64), (32, 32)]  # the second image is padded: three quarters of its cells hold nothing
TRUTH = [
    {"boxes": torch.tensor([[6.0, 6, 30, 34], [20, 14, 62, 60]]), "labels": torch.tensor([1, 0])},
    {"boxes": torch.tensor([[3.0, 4, 27, 26]]), "labels": torch.tensor([2])},
]
NOTHING = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2


def made_up(kind, loss):
    """(head, its output with random predictions that may be learned): boxes near their priors, so some overlap"""
    points, unit = pyramid_points(SHAPES, STRIDES), per_point(STRIDES, SHAPES)
    if kind == "retinanet":
        head = RetinaNetHead(RetinaNetConfig(classes=3, channels=32, depth=1, loss=loss))
        anchors = pyramid_anchors(SHAPES, STRIDES, head.config.anchor_sizes, head.config.anchor_ratios)
        return head, RetinaNetOutput(noise(len(anchors), 3), noise(len(anchors), 4) * 0.3, anchors, SHAPES)
    if kind == "fovea":
        head = FoveaBoxHead(FoveaBoxConfig(classes=3, channels=32, depth=1, loss=loss))
        points = pyramid_points(SHAPES, STRIDES, 0.5)
        return head, FoveaBoxOutput(noise(len(points), 3), noise(len(points), 4) * 0.5, points, unit * 2, SHAPES)
    ltrb = (noise(len(points), 4) * 0.3).exp() * unit[:, None] * 2
    boxes = ltrb_to_xyxy(points, ltrb)
    if kind == "atss":
        head = ATSSHead(ATSSConfig(classes=3, channels=32, depth=1, loss=loss))
        anchors = pyramid_anchors(SHAPES, STRIDES, (8.0,))
        return head, ATSSOutput(noise(len(points), 3), boxes, noise(len(points), 1)[..., 0], anchors, SHAPES)
    head = RepPointsHead(RepPointsConfig(classes=3, channels=32, depth=1, loss=loss))
    refined, nine = boxes + noise(len(points), 4) * 3, torch.zeros(2, len(points), 9, 2)
    where = torch.cat([points, unit[:, None]], 1)
    return head, RepPointsOutput(noise(len(points), 3), boxes, refined, nine, nine, where, SHAPES)


def noise(*shape):
    return torch.randn(2, *shape, requires_grad=True)


def valid_priors(head, image):
    """(P,) bool: those on the image, not on batch padding"""
    side, valid = SIZES[image][0], []
    for (h, w), s in zip(SHAPES, STRIDES, strict=True):
        inside = [y * s < side and x * s < side for y in range(h) for x in range(w)]
        valid += [v for v in inside for _ in range(getattr(head, "per_cell", 1))]
    return torch.tensor(valid)


def matches(kind, head, out, targets):
    """(B, P) gt index, BACKGROUND, or IGNORED"""
    rows = []
    for i, boxes in enumerate(t["boxes"] for t in targets):
        valid = valid_priors(head, i)
        match = torch.full((len(valid),), IGNORED)
        if kind == "fovea":
            match = fovea(SHAPES, STRIDES, head.config.scale_ranges, boxes)
        elif kind == "atss":
            per_level = [int(v.sum()) for v in valid.split([h * w for h, w in SHAPES])]
            match[valid] = atss(out.anchors[valid], per_level, boxes)
        else:
            match[valid] = max_iou((out.anchors if kind == "retinanet" else out.boxes[i].detach())[valid], boxes)
        rows.append(match)
    return torch.stack(rows)


@pytest.mark.parametrize("targets", [TRUTH, NOTHING], ids=["truth", "nothing"])
@pytest.mark.parametrize("loss", ["focal", "varifocal"])
@pytest.mark.parametrize("kind", ["retinanet", "fovea", "reppoints", "atss"])
def test_classification_is_wired_as_the_authors_did(kind, loss, targets):
    """Whose IoU is the target, its floor, what is ignored, and the normaliser; by a loop over every prior."""
    head, out = made_up(kind, loss)
    boxes = (out.refined if kind == "reppoints" else out.boxes).detach()
    if kind == "fovea":
        boxes = clip(boxes, (63, 63))  # the first image's size, also for the second
    match = matches(kind, head, out, targets)
    masked = kind in ("retinanet", "reppoints") or (kind == "atss" and loss == "focal")
    fn, total = focal_loss if loss == "focal" else varifocal_loss, 0.0
    for i, p in torch.cartesian_prod(torch.arange(2), torch.arange(match.shape[1])).tolist():
        index, target = int(match[i, p]), torch.zeros(3)
        if index >= 0:
            quality = iou(boxes[i, p], targets[i]["boxes"][index])
            floored = quality.clamp(min=1e-6) if kind in ("fovea", "atss") else quality
            target[targets[i]["labels"][index]] = 1.0 if loss == "focal" else floored
        if index != IGNORED or not masked:
            total += float(fn(out.logits[i, p].detach(), target, head.config.alpha, head.config.gamma).sum())
    positives = (match >= 0).sum(1)
    assert positives.max() > 0 or targets is NOTHING
    # an image without a positive counts as one, in FoveaBox every image
    count = int(positives.sum()) + 2 if kind == "fovea" else int(positives.clamp(min=1).sum())
    losses = head.loss(out, targets, SIZES)
    close(losses["cls"], total / count, rtol=1e-4)
    if targets is NOTHING:
        assert all(float(v.detach()) == 0 for n, v in losses.items() if n != "cls")
    sum(losses.values()).backward()  # without a positive every prediction still has a gradient, if only 0
    assert all(x.grad is not None for x in out if torch.is_tensor(x) and x.is_leaf and x.requires_grad)


@pytest.mark.parametrize("kind, lifted", [("retinanet", False), ("reppoints", False), ("fovea", True), ("atss", True)])
def test_a_positive_that_overlaps_nothing(kind, lifted):
    """Where its target is raised above 0 it is left alone; RetinaNet and RepPoints push it down like a negative."""
    head, out = made_up(kind, "varifocal")
    match, far = matches(kind, head, out, TRUTH), torch.tensor([3e3, 3e3, 3e3 + 9, 3e3 + 9])
    away = {
        "retinanet": {"deltas": torch.tensor([300.0, 300, -1, -1]).expand(2, len(match[0]), 4)},
        "reppoints": {"refined": far.expand(2, len(match[0]), 4)},
        "fovea": {"log_ltrb": torch.full((2, len(match[0]), 4), -20.0)},  # a dot
        "atss": {"boxes": far.expand(2, len(match[0]), 4)},
    }
    out = out._replace(**away[kind], logits=torch.full_like(out.logits, 8.0, requires_grad=True))
    head.loss(out, TRUTH, SIZES)["cls"].backward()
    image, prior = torch.nonzero(match >= 0, as_tuple=True)
    label = torch.stack([TRUTH[i]["labels"][match[i, p]] for i, p in zip(image, prior, strict=True)])
    gradient = out.logits.grad[image, prior, label]
    assert (gradient < 1e-4).all() if lifted else (gradient > 1e-2).all()


def test_atss_scores_are_multiplied_by_centerness_with_either_loss():
    for loss in ("focal", "varifocal"):
        head, out = made_up("atss", loss)
        close(head.candidates(out, SIZES).factor.detach(), out.centerness.sigmoid().detach())


def test_fovea_boxes_end_at_the_last_pixel():
    head, out = made_up("fovea", "focal")
    wide = out._replace(log_ltrb=torch.full_like(out.log_ltrb, 5.0))
    boxes = head.candidates(wide, SIZES).boxes
    assert boxes[0, 0].tolist() == [0, 0, 63, 63] and boxes[1, 0].tolist() == [0, 0, 31, 31]


def two_pictures():
    images = [(torch.rand(3, 96, 96) * 40).to(torch.uint8) for _ in range(2)]
    boxes = [torch.tensor([[10.0, 12, 58, 50], [60, 52, 90, 92]]), torch.tensor([[20.0, 30, 84, 80]])]
    labels = [torch.tensor([0, 1]), torch.tensor([2])]
    colour = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=torch.uint8)
    for image, own, classes in zip(images, boxes, labels, strict=True):
        for (x1, y1, x2, y2), c in zip(own.long().tolist(), classes, strict=True):
            image[:, y1:y2, x1:x2] = colour[c][:, None, None]
    return images, [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]


@torch.no_grad()
def best_of_each_object(model, images, targets):
    """Mean IoU and mean score of the best box of the right class"""
    found = []
    for d, target in zip(model.eval()(images), targets, strict=True):
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            right = d.labels == label
            overlap = iou(d.boxes[right], box) if right.any() else torch.zeros(1)
            best = overlap.argmax()
            found.append((float(overlap[best]), float(d.scores[right][best]) if right.any() else 0.0))
    model.train()
    ious, scores = zip(*found, strict=True)
    return sum(ious) / len(ious), sum(scores) / len(scores)


@pytest.mark.parametrize(
    "name",
    ["vfnet_r50_1x", "retinanet_r50_vfl_1x", "foveabox_r50_vfl_1x", "reppoints_r50_vfl_1x", "atss_r50_vfl_1x"]
    + ["retinanet_r50_fl_1x", "atss_r50_fl_1x"],
)
def test_overfits_two_pictures(name, one_thread):
    recipe = recipes.by_name(name)
    model = build(
        replace(
            recipe,
            backbone=ResNetConfig((1, 1, 1, 1), width=16, frozen_stages=-1),
            neck=replace(recipe.neck, channels=32),
            head=replace(recipe.head, channels=32, depth=1, classes=3),
        )
    )
    images, targets = two_pictures()
    before = best_of_each_object(model, images, targets)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0)
    for _ in range(60 if "reppoints" in name else 45):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    overlap, score = best_of_each_object(model, images, targets)
    assert before[0] < 0.3 and before[1] < 0.1
    assert overlap > 0.8 and score > 0.6, (overlap, score)

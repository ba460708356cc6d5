"""VFNet R-50 whole: keys, features, outputs, detections, losses, gradients and one training step, against the authors' code.

The weights are the recorded recipe's, reached through `from_mmdet`, as a published checkpoint would be.
"""

import pytest
import torch
from recorded import Recording, close, dot, draw_input, draw_state, keys

from vfnet_edu import recipes
from vfnet_edu.boxes import ltrb_to_xyxy
from vfnet_edu.build import build
from vfnet_edu.layers import flatten_levels
from vfnet_edu.postprocess import select
from vfnet_edu.priors import grid_points
from vfnet_edu.weights import from_mmdet, load_state, to_mmdet

DET, TRAIN = Recording("det_vfnet_r50"), Recording("train_vfnet_r50")
STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def model():
    model = build(recipes.vfnet_r50_1x())
    load_state(model, from_mmdet(draw_state("vfnet_r50")), "the recorded recipe")
    return model


def test_keys_and_counts(model):
    recorded = keys("vfnet_r50")
    theirs = to_mmdet(model.state_dict())
    assert {k: list(v.shape) for k, v in theirs.items()} == {r["key"]: r["shape"] for r in recorded["state"]}
    assert len(theirs) == 373
    assert sum(p.numel() for p in model.parameters()) == recorded["num_parameters"] == 32_891_554
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recorded["num_trainable"]
    trainable = to_mmdet({n: p for n, p in model.named_parameters() if p.requires_grad})
    assert set(trainable) == {r["key"] for r in recorded["state"] if r["kind"] == "trainable"}


def test_there_and_back(model):
    state = model.state_dict()
    again = from_mmdet({f"module.{k}": v for k, v in to_mmdet(state).items()})
    assert again.keys() == state.keys() and all(torch.equal(again[k], state[k]) for k in state)


@pytest.fixture(scope="module")
def output(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        features = model.backbone(DET["input"])
        pyramid = model.neck(features)
        out = model.head(pyramid)
    torch.set_num_threads(threads)
    return features, pyramid, out


def within(actual, expected, noise, times=10.0):
    """Closer than a few times the rounding noise of the recording itself."""
    assert float((actual - expected).abs().max()) <= times * float(noise) + 1e-5 * float(expected.abs().max())


def test_features(model, output):
    features, pyramid, _ = output
    stats = DET["backbone_stats"]
    for row, name, x in zip(stats[1:], ("c3", "c4", "c5"), features, strict=True):
        close(torch.stack([x.mean(), x.std()]), row[:2], rtol=1e-4)
        close(dot(x, name), row[2], rtol=1e-3, atol=1e-2)
    for i, x in enumerate(pyramid):
        within(x, DET[f"fpn_{i}"], DET["noise_fpn"][i])


def test_outputs(output):
    _, _, out = output
    points = torch.cat([grid_points(hw, s) for hw, s in zip(out.level_shapes, STRIDES, strict=True)])
    for name, ours in (("cls", out.logits), ("bbox", out.boxes), ("bbox_refine", out.refined)):
        maps = DET.levels(name)
        recorded = flatten_levels(maps, maps[0].shape[1])
        recorded = recorded if name == "cls" else ltrb_to_xyxy(points, recorded)
        noise, start = DET[f"noise_{name}"], 0
        for i, (h, w) in enumerate(out.level_shapes):
            within(ours[:, start : start + h * w], recorded[:, start : start + h * w], noise[i])
            start += h * w


@pytest.mark.parametrize("name, scale", [("det", 1.0), ("det_rescale", 1.25)])
def test_detections(model, output, name, scale):
    candidates = model.head.candidates(output[2], [(128, 160)])
    found = select(candidates, 0, (128, 160), model.detect, (scale, scale))
    assert torch.equal(found.labels, DET[f"{name}_labels"])
    close(found.scores, DET[f"{name}_scores"], rtol=1e-4, atol=1e-5)
    close(found.boxes, DET[f"{name}_boxes"], rtol=1e-4, atol=5e-3)


@pytest.mark.parametrize("batch", ["both", "second_empty", "none"])
def test_training(model, batch, one_thread):
    """Losses to 1e-4; single gradients to the noise the recording allows them; their total norm to 1e-4."""
    x = draw_input("train.input", (2, 3, 128, 160))
    x[1, :, 90:] = 0
    x[1, :, :, 120:] = 0
    targets = [{"boxes": TRAIN[f"{batch}_gt_boxes_{i}"], "labels": TRAIN[f"{batch}_gt_labels_{i}"]} for i in range(2)]
    model.train().zero_grad()
    losses = model.head.loss(model.predict(x), targets, [tuple(s) for s in TRAIN["img_shapes"].tolist()])
    for theirs, ours in (("loss_cls", "cls"), ("loss_bbox", "box"), ("loss_bbox_rf", "refine")):
        close(losses[ours], TRAIN[f"{batch}_{theirs}"])
    sum(losses.values()).backward()
    grads = to_mmdet({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    norms, dots, names = TRAIN[f"{batch}_grad_norm"], TRAIN[f"{batch}_grad_dot"], TRAIN.text("param_names")
    assert set(grads) == set(names)
    total = torch.stack([g.double().square().sum() for g in grads.values()]).sum().sqrt()
    close(total, TRAIN[f"{batch}_grad_norm_total"], rtol=2e-4)
    for i, name in enumerate(names):
        floor = 1e-4 * float(norms.max())  # below, only the absolute difference means anything
        close(grads[name].norm(), norms[i], rtol=5e-3, atol=floor)
        assert abs(dot(grads[name], name) - float(dots[i])) <= 1e-2 * float(norms[i]) + floor, name
    if batch == "both":
        for name in grads:
            if f"both_grad.{name}" in TRAIN:
                expected = TRAIN[f"both_grad.{name}"]
                close(grads[name], expected, rtol=1e-2, atol=3e-3 * float(expected.abs().max()))


def test_images_of_any_size(model):
    """uint8 in, one stack, detections inside each image; losses whether or not an image has boxes."""
    model.eval()
    images = [torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8), torch.randint(0, 256, (3, 64, 40), dtype=torch.uint8)]
    batch = model.stack(images)
    assert batch.shape == (2, 3, 96, 96)
    expected = (images[1].float() - model.mean) / model.std
    close(batch[1, :, :64, :40], expected, rtol=1e-6)
    assert batch[1, :, 64:].abs().sum() == 0 and batch[1, :, :, 40:].abs().sum() == 0  # zero after normalising
    with torch.no_grad():
        found = model(images)
        losses = model(images, [{"boxes": torch.tensor([[5.0, 5, 60, 50]]), "labels": torch.tensor([3])},
                                {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}])  # fmt: skip
    assert set(losses) == {"cls", "box", "refine"} and all(v.isfinite() for v in losses.values())
    for image, d in zip(images, found, strict=True):
        h, w = image.shape[-2:]
        assert (d.boxes >= 0).all() and (d.boxes[:, 0::2] <= w).all() and (d.boxes[:, 1::2] <= h).all()

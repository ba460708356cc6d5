"""Chapter 12: its explorer computes what the head and its losses compute, forward and backward."""

import pytest
import torch
from javascript import in_node
from torch import Tensor
from torchvision.ops import deform_conv2d

import vfnet_edu as vf
from vfnet_edu.assigners import atss
from vfnet_edu.boxes import centers, giou, iou, ltrb_to_xyxy
from vfnet_edu.data.shapes import VAL_START, draw_scene
from vfnet_edu.losses import giou_loss, varifocal_loss
from vfnet_edu.ops.star.operator import star_conv2d, star_offsets
from vfnet_edu.runtime.errors import UserError

pytest.importorskip("anywidget", reason="the explorers need anywidget")
MEANS = (0.80, 0.81)
OUTWARD = torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)


@pytest.fixture(scope="module")
def model():
    return vf.load("vfnet_tiny")[1]


@pytest.fixture(scope="module")
def cases(model):
    """The first positive of P3 in two scenes."""
    from vfnet_edu.widgets.refinement import Case

    found = []
    for name, number in (("one", 0), ("two", 3)):
        image, target = draw_scene(0, VAL_START + number)
        with torch.no_grad():
            anchors = model.raw([image]).anchors
        match = atss(anchors, [256, 64, 16], target["boxes"])[:256]
        cell = int((match >= 0).nonzero()[0, 0])
        found.append(Case(name, image, target, cell, int(match[cell])))
    return found


@pytest.fixture(scope="module")
def explorer(model, cases):
    from vfnet_edu.widgets.refinement import RefinementExplorer

    return RefinementExplorer(model, cases, MEANS)


def in_page(explorer, expression: str, data=None):
    """The value of an expression that sees the explorer's `bundle` and `cells`."""
    code = f"""((given) => {{
      const view = new DataView(new Uint8Array(given.bytes).buffer), {{ cells, data }} = given;
      const bundle = unpack(view, given.shape, cells.length);
      return {expression};
    }})(data)"""
    given = {"bytes": list(explorer.data), "shape": explorer.shape, "cells": explorer.cells, "data": data}
    return in_node("refinement", code, given)


def by_autograd(explorer, which: int, ltrb: list[float]) -> dict[str, Tensor]:
    """What the page computes, from the same bytes, by the package's operators and autograd, in double precision."""
    shape, cell = explorer.shape, explorer.cells[which]
    c, k, h, w, stride = (shape[key] for key in ("channels", "classes", "height", "width", "stride"))
    numbers = torch.frombuffer(bytearray(explorer.data), dtype=torch.float16).double()
    sizes = [9 * c * c, k * c, 9 * c * c, 4 * c] + [h * w * c] * 2 * len(explorer.cells)
    (*parts,) = numbers.split(sizes)
    weights = [parts[i].view(3, 3, c, c).permute(2, 3, 0, 1) for i in (0, 2)]
    outs = [parts[i].view(-1, c) for i in (1, 3)]
    maps = [part.view(h, w, c).permute(2, 0, 1)[None] for part in parts[4 + 2 * which : 6 + 2 * which]]
    px, py = cell["point"]
    x, y = px // stride, py // stride

    leaf = torch.tensor(ltrb, dtype=torch.float64, requires_grad=True)
    boxes = torch.full((1, 4, h, w), float(stride), dtype=torch.float64)
    boxes[0, :, y, x] = leaf
    offsets = star_offsets(boxes, stride).detach().requires_grad_()
    answers, free = [], []  # reading at the star of the leaf, and at nine free points
    for features, weight, out, base in zip(maps, weights, outs, cell["base"], strict=True):
        start = torch.tensor(base, dtype=torch.float64)
        for seen, into in (
            (star_conv2d(features, boxes, weight, stride, engine="reference"), answers),
            (deform_conv2d(features, offsets, weight.contiguous(), padding=1), free),
        ):
            into.append(start + out @ seen[0, :, y, x].relu())

    truth, point = torch.tensor(cell["truth"], dtype=torch.float64), torch.tensor([px, py], dtype=torch.float64)
    found = {}
    for name, (z, v) in (("sides", answers), ("points", free)):
        refined = ltrb_to_xyxy(point, leaf.detach() * (shape["gain"] * v).exp())
        q = iou(refined.detach(), truth)
        target = torch.zeros(k, dtype=torch.float64)
        target[cell["label"]] = q
        losses = {
            "byScore": varifocal_loss(z, target).sum(),
            "byRefinement": shape["weights"][1] * q * giou_loss(refined, truth),
        }
        where = leaf if name == "sides" else offsets
        for loss, value in losses.items():
            (g,) = torch.autograd.grad(value, where, retain_graph=True)
            found[loss, name] = g if name == "sides" else g[0, :, y, x].view(9, 2)
    first = ltrb_to_xyxy(point, leaf)
    overlap = iou(first.detach(), truth)
    (own,) = torch.autograd.grad(shape["weights"][0] * overlap * giou_loss(first, truth), leaf)
    refined = leaf.detach() * (shape["gain"] * answers[1].detach()).exp()
    score = answers[0].detach().sigmoid()[cell["label"]]
    return found | {"own": own, "iou": overlap, "refinedIou": q, "refined": refined, "score": score}


def boxes_to_try(explorer, which: int) -> list[list[float]]:
    """Its own first box, and some that are smaller, larger, and partly outside the map."""
    start = torch.tensor(explorer.cells[which]["ltrb"], dtype=torch.float64)
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(which), dtype=torch.float64)
    return [start.tolist(), *(start * (0.5 * noise).exp()).tolist(), [150.0, 2.3, 90.1, 40.7]]


@pytest.mark.parametrize("which", [0, 1])
def test_the_page_computes_what_autograd_does(explorer, which):
    tried = boxes_to_try(explorer, which)
    got = in_page(explorer, f"data.map((ltrb) => evaluate(bundle, {which}, cells[{which}], ltrb))", tried)
    for ltrb, seen in zip(tried, got, strict=True):
        wanted = by_autograd(explorer, which, ltrb)
        mine = {key: seen[key] for key in ("own", "iou", "refinedIou", "refined", "score")}
        mine |= {(loss, name): seen[loss][name] for loss in ("byScore", "byRefinement") for name in ("sides", "points")}
        assert mine.keys() == wanted.keys()
        for key, value in mine.items():
            value = torch.tensor(value, dtype=torch.float64)
            torch.testing.assert_close(value, wanted[key], rtol=1e-12, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}")


def test_the_page_sees_what_the_model_sees(explorer, model, cases):
    """Weights and features are of half precision; the gradients of this cell's losses are the model's to a percent."""
    case, cell = cases[0], explorer.cells[0]
    out = model.raw([case.image])
    label, truth = cell["label"], case.target["boxes"][case.object]
    point = centers(out.anchors[case.cell])
    assert point.tolist() == cell["point"] and int(case.target["labels"][case.object]) == label
    (seen,) = in_page(explorer, "[evaluate(bundle, 0, cells[0], cells[0].ltrb)]")
    assert seen["iou"] == pytest.approx(float(iou(out.boxes[0, case.cell].detach(), truth)), abs=2e-3)
    assert seen["refinedIou"] == pytest.approx(float(iou(out.refined[0, case.cell].detach(), truth)), abs=2e-3)
    assert seen["score"] == pytest.approx(float(out.logits[0, case.cell, label].detach().sigmoid()), abs=3e-3)

    head, stride = model.head, model.head.config.strides[0]
    fine = model.neck(model.backbone(model.stack([case.image])))[0]
    reg = head.reg_tower(fine)
    leaf = head.initial_box(0, reg).detach().requires_grad_()
    y, x = divmod(case.cell, fine.shape[3])
    logits = head.score_out(star_conv2d(head.cls_tower(fine), leaf, head.score_star, stride).relu())[0, :, y, x]
    answers = head.refine_out(star_conv2d(reg, leaf, head.refine_star, stride).relu())[0, :, y, x]
    refined = ltrb_to_xyxy(point, leaf.detach()[0, :, y, x] * (head.refine_gain[0] * answers).exp())
    q = iou(refined.detach(), truth)
    target = torch.zeros_like(logits)
    target[label] = q
    losses = (varifocal_loss(logits, target).sum(), 2 / MEANS[1] * q * giou_loss(refined, truth))
    for loss, name in zip(losses, ("byScore", "byRefinement"), strict=True):
        (g,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        wanted = g[0, :, y, x]
        mine = torch.tensor(seen[name]["sides"])
        assert (mine - wanted).norm() < 0.03 * wanted.norm(), name


def test_overlap_and_its_slopes():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 60, 2, 2, generator=generator, dtype=torch.float64).mul(40).unbind()
    a, b = torch.cat([corner, corner + size + 1], -1).unbind(1)  # (60, 4) each: disjoint, crossing, nested
    got = in_node("refinement", "data[0].map((a, n) => overlap(a, data[1][n]))", [a.tolist(), b.tolist()])
    a.requires_grad_()
    value = giou(a, b)
    value.sum().backward()
    assert (iou(a, b) == 0).any() and (iou(a, b) > 0.3).any()
    for key, wanted in (("iou", iou(a, b)), ("giou", value), ("slopes", a.grad)):
        mine = torch.tensor([one[key] for one in got], dtype=torch.float64)
        torch.testing.assert_close(mine, wanted.detach(), rtol=1e-12, atol=1e-12)


def test_the_push_of_the_varifocal_loss():
    z = torch.linspace(-12, 12, 49, dtype=torch.float64, requires_grad=True)
    for q in (0.0, 1e-6, 0.3, 0.9):
        got = in_node("refinement", "data[0].map((z) => varifocalPush(z, data[1]))", [z.tolist(), q])
        (wanted,) = torch.autograd.grad(varifocal_loss(z, torch.full_like(z, q)).sum(), z)
        torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), wanted, rtol=1e-12, atol=1e-15)


def test_numbers_of_half_precision():
    bits = [0, 1, 1023, 1024, 15360, 31743, 32768, 33000, 50000, 64511]
    packed = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(torch.float16)
    raw = list(packed.numpy().tobytes())
    got = in_node("refinement", "[...halves(new DataView(new Uint8Array(data).buffer))]", raw)
    assert torch.equal(torch.tensor(got, dtype=torch.float64), packed.double())


def test_a_step_follows_both_teachers(explorer):
    """Descent on the logarithms: small steps lower the loss of the first box; the star counts by its factor."""
    sum_up = "together(seen, { pull: 'both', own: true, factor: 0.25 })"
    seen, both = in_page(explorer, f"((seen) => [seen, {sum_up}])(evaluate(bundle, 0, cells[0], cells[0].ltrb))")
    wanted = [own + 0.25 * (a + b) for own, a, b in
              zip(seen["own"], seen["byScore"]["sides"], seen["byRefinement"]["sides"], strict=True)]  # fmt: skip
    assert both == pytest.approx(wanted, abs=1e-12)
    silent = "together(seen, { pull: 'score', own: false, factor: 1 })"
    alone = in_page(explorer, f"((seen) => {silent})(evaluate(bundle, 0, cells[0], cells[0].ltrb))")
    assert alone == pytest.approx(seen["byScore"]["sides"], abs=1e-12)
    moved = in_node("refinement", "step([10, 20, 30, 40], [0.1, -0.1, 0, 100])")
    assert moved == pytest.approx([10 * 0.951229425, 20 * 1.105170918, 30, 40 * 0.818730753])
    own = "{ pull: 'both', own: true, factor: 0 }"
    path = in_page(
        explorer,
        f"""[...Array(12).keys()].reduce((seen, _) => {{
      const ltrb = seen.at(-1)[0], next = step(ltrb, together(evaluate(bundle, 0, cells[0], ltrb), {own}));
      return [...seen, [next, evaluate(bundle, 0, cells[0], next).iou]];
    }}, [[cells[0].ltrb, evaluate(bundle, 0, cells[0], cells[0].ltrb).iou]]).map(([, iou]) => iou)""",
    )
    assert path[-1] > path[0]


def test_words_and_arrows(explorer):
    seen = "evaluate(bundle, 0, cells[0], cells[0].ltrb)"
    told = in_page(explorer, f"words({seen}, cells[0].ltrb, {{ pull: 'both', own: true, factor: 0.1 }})")
    l, t, r, b = explorer.cells[0]["ltrb"]
    assert told.startswith(f"First box {l + r:.1f} × {t + b:.1f} px: IoU ")
    assert "Factor 0.1. The star pulls most at the " in told and "own loss" in told
    silent = in_page(explorer, f"words({seen}, cells[0].ltrb, {{ pull: 'score', own: false, factor: 0.1 }})")
    assert "own loss" not in silent
    assert in_node("refinement", "arrow(5, 5, 1, 0)") == "M0 0"
    assert in_node("refinement", "arrow(0, 0, 20, 0)").startswith("M0.00 0.00L20.00 0.00M13.00")


def test_explorer(explorer, model, cases):
    assert explorer.ltrb == explorer.cells[0]["ltrb"] and len(explorer.data) < 450_000
    for cell in explorer.cells:
        left, top, side = cell["view"]
        x1, y1, x2, y2 = cell["truth"]
        assert left <= x1 and top <= y1 and x2 <= left + side and y2 <= top + side
        assert cell["image"].startswith("data:image/jpeg;base64,") and len(cell["image"]) < 20_000
    from vfnet_edu.widgets.refinement import RefinementExplorer

    later = RefinementExplorer(model, cases, MEANS, which=1, factor=1.0)
    assert later.ltrb == later.cells[1]["ltrb"] and later.cells[1]["name"] == "two"
    with pytest.raises(UserError, match="has no star"):
        recipe = vf.recipes.atss_r50_fl_1x()
        with torch.device("meta"):
            other = vf.build(recipe)
        RefinementExplorer(other, cases, MEANS)

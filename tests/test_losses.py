"""The losses against the authors' code, against the numbers one can derive by hand, and at the edges."""

import pytest
import torch
from recorded import Recording, close

from vfnet_edu.boxes import iou
from vfnet_edu.losses import focal_loss, giou_loss, quality_focal_loss, smooth_l1_loss, total, varifocal_loss

REC = Recording("losses")


def one_hot(labels, classes=10):
    target = torch.zeros(len(labels), classes)
    rows = labels < classes
    target[rows, labels[rows]] = 1
    return target


def check(elementwise, inputs, name, weight, avg_factor, loss_weight):
    """value and gradient, per element and as the weighted mean that a head would take"""
    x = inputs.clone().requires_grad_()
    loss = elementwise(x) * loss_weight
    (grad,) = torch.autograd.grad(loss.sum(), x)
    close(loss, REC[f"{name}_none"])
    close(grad, REC[f"{name}_none_grad"])
    x = inputs.clone().requires_grad_()
    mean = (elementwise(x) * weight).sum() / avg_factor * loss_weight
    (grad,) = torch.autograd.grad(mean, x)
    close(mean, REC[f"{name}_mean"])
    close(grad, REC[f"{name}_mean_grad"])


@pytest.mark.parametrize("i", range(8))
def test_varifocal(i):
    alpha, gamma, weighted = REC["vfl_variants"][i].tolist()
    check(
        lambda z: varifocal_loss(z, REC["vfl_target"], alpha, gamma, bool(weighted)),
        REC["logits"], f"vfl{i}", REC["weights"][:, None], REC["avg_factor"], REC["loss_weight"],
    )  # fmt: skip


@pytest.mark.parametrize("i", range(3))
def test_focal(i):
    alpha, gamma = REC["fl_variants"][i].tolist()
    target = one_hot(REC["labels"])
    x = REC["logits"].clone().requires_grad_()
    loss = focal_loss(x, target, alpha, gamma)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    close(loss, REC[f"fl{i}_none"])
    close(grad, REC[f"fl{i}_none_grad"])
    x = REC["logits"].clone().requires_grad_()
    mean = (focal_loss(x, target, alpha, gamma) * REC["weights"][:, None]).sum() / REC["avg_factor"] * 1.5
    (grad,) = torch.autograd.grad(mean, x)
    close(mean, REC[f"fl{i}_mean"])
    close(grad, REC[f"fl{i}_mean_grad"])


@pytest.mark.parametrize("i", range(2))
def test_quality_focal(i):
    beta = float(REC["qfl_betas"][i])
    target = one_hot(REC["labels"]) * REC["ious"][:, None]
    check(
        lambda z: quality_focal_loss(z, target, beta).sum(1),
        REC["logits"], f"qfl{i}", REC["weights"], REC["avg_factor"], REC["loss_weight"],
    )  # fmt: skip


@pytest.mark.parametrize("name", ["giou", "iou", "l1", "smoothl1"])
def test_box_losses(name):
    target, weight = REC["box_target"], REC["box_weight"]
    fn = {
        "giou": lambda b: giou_loss(b, target),
        "iou": lambda b: -iou(b, target).clamp(min=1e-6).log(),
        "l1": lambda b: (b - target).abs(),
        "smoothl1": lambda b: smooth_l1_loss(b, target, 0.11),
    }[name]
    check(fn, REC["box_pred"], name, weight if "iou" in name else weight[:, None], REC["box_avg_factor"], 2.0)


def test_varifocal_by_hand():
    """(logit, target) -> loss and gradient; derived on paper from equation 2."""
    z = torch.tensor([-4.59512, 0.0, 2.0, -4.59512, -4.59512, 0.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0, 0, 0, 0.5, 0.9, 0.5, 0.9, 0.9], dtype=torch.float64)
    loss = varifocal_loss(z, q)
    (grad,) = torch.autograd.grad(loss.sum(), z)
    expected = [7.54e-7, 0.12996510, 1.23755863, 1.15380517, 3.73109250, 0.34657359, 0.62383246, 0.29423521]
    gradient = [2.24e-6, 0.22371510, 0.80753530, -0.245, -0.801, 0, -0.36, -0.01728263]
    close(loss, torch.tensor(expected), rtol=1e-6, atol=1e-8)
    close(grad, torch.tensor(gradient), rtol=1e-6, atol=1e-8)


def test_varifocal_gradients_in_closed_form():
    """q > 0: q(p - q).  q = 0: alpha p^gamma (p + gamma (1 - p) softplus(z))."""
    z = torch.linspace(-6, 6, 49, dtype=torch.float64, requires_grad=True)
    p = z.sigmoid().detach()
    for q in (0.3, 0.9):
        (grad,) = torch.autograd.grad(varifocal_loss(z, torch.full_like(z, q)).sum(), z)
        close(grad, q * (p - q), rtol=1e-9, atol=1e-12)
    (grad,) = torch.autograd.grad(varifocal_loss(z, torch.zeros_like(z)).sum(), z)
    softplus = torch.nn.functional.softplus(z.detach())
    close(grad, 0.75 * p**2 * (p + 2 * (1 - p) * softplus), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", [varifocal_loss, focal_loss, quality_focal_loss])
def test_finite_for_extreme_logits(loss, dtype):
    z = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype).requires_grad_()
    for q in (0.0, 1.0):
        value = loss(z.float(), torch.full((5,), q)).sum()
        (grad,) = torch.autograd.grad(value, z)
        assert value.isfinite() and grad.isfinite().all()


def test_disjoint_boxes_still_pull():
    a = torch.tensor([[0.0, 0, 10, 10]], requires_grad=True)
    loss = giou_loss(a, torch.tensor([[5.0, 5, 15, 15]]))
    close(loss[0], 1.079365, rtol=1e-6)
    (grad,) = torch.autograd.grad(giou_loss(a, torch.tensor([[50.0, 50, 60, 60]])).sum(), a)
    assert grad.abs().sum() > 0


def test_total_adds_the_terms():
    terms = {name: torch.tensor(value, requires_grad=True) for name, value in (("cls", 1.5), ("box", 0.25))}
    total(terms).backward()
    assert total(terms) == 1.75 and all(term.grad == 1 for term in terms.values())

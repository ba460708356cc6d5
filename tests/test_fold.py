"""Norms folded into their convolutions: the same answers, and the detector that learns is left alone."""

import pytest
import torch
from recorded import close
from small import HEADS, small

from vfnet_edu.inference import for_inference
from vfnet_edu.models.detector import build
from vfnet_edu.models.fold import fold_norms


def shaken(name):
    """A small detector whose frozen statistics are no longer 0 and 1."""
    torch.manual_seed(0)
    model = build(small(name)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.weight, 0.5)):
                torch.nn.init.uniform_(tensor, low, low + 1)
    return model


@pytest.mark.parametrize("name", HEADS)
def test_a_folded_detector_answers_the_same(name):
    model = shaken(name)
    folded = fold_norms(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for mine, theirs in zip(model.backbone(x), folded.backbone(x), strict=True):
            close(theirs, mine, rtol=1e-4, atol=1e-4 * float(mine.abs().max()))


def test_the_detector_itself_stays_as_it_is():
    model = shaken("vfnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = for_inference(model)
    with torch.inference_mode():
        fast([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert model.training and before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    target = {"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])}
    sum(model([torch.zeros(3, 64, 64, dtype=torch.uint8)], [target]).values()).backward()
    assert model.head.score_out.weight.grad is not None

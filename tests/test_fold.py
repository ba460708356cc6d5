"""Norms folded into their convolutions: the same answers, and the detector that learns is left alone."""

import pytest
import torch
from recorded import close
from small import HEADS, small

from vfnet_edu.inference import detect, for_inference
from vfnet_edu.models.detector import build
from vfnet_edu.models.fold import fold_norms
from vfnet_edu.ops.dcn import ModulatedDeformConv2d
from vfnet_edu.runtime.errors import UserError
from vfnet_edu.weights.ours import save


def shaken(name):
    """A small detector whose frozen statistics are no longer 0 and 1, and whose offsets are no longer 0."""
    torch.manual_seed(0)
    model = build(small(name)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.3), (module.running_var, 0.5), (module.weight, 0.5)):
                torch.nn.init.uniform_(tensor, low, low + 1)
        if isinstance(module, ModulatedDeformConv2d):
            torch.nn.init.normal_(module.conv_offset.weight, std=0.05)
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
        mine, theirs = model.network(x), folded.network(x)
    close(theirs.logits, mine.logits, rtol=1e-4, atol=1e-4)
    close(theirs.boxes, mine.boxes, rtol=1e-4, atol=1e-2)


def test_the_detector_itself_stays_as_it_is():
    model = shaken("vfnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = for_inference(model)
    with torch.inference_mode():
        fast([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert model.training and before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["vfnet_dcn", "vfnet_r2"])
def test_answering_in_between_changes_no_step(name, one_thread):
    """Two steps of learning, with and without answers before each: the same weights, to the last bit."""
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])}

    def learn(answers: bool) -> dict[str, torch.Tensor]:
        model = shaken(name).train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
        for _ in range(2):
            if answers:
                detect(model, image)
                detect(for_inference(model), image)
            sum(model([image], [target]).values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.state_dict()

    quiet, asked = learn(False), learn(True)
    assert all(torch.equal(quiet[key], asked[key]) for key in quiet)


def test_a_folded_detector_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="cannot be saved .save the one"):
        save(tmp_path / "folded.safetensors", for_inference(shaken("vfnet")))
    assert not list(tmp_path.iterdir())

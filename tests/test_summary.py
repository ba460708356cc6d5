"""Parameters and operations, part by part."""

import pytest
import torch

from vfnet_edu import recipes, summary
from vfnet_edu.models.detector import build
from vfnet_edu.runtime.errors import UserError


def parts_of(name, size=(800, 1344)):
    with torch.device("meta"):
        model = build(recipes.by_name(name))
    return {p.name: p for p in summary.summarize(model, size)}, model


def test_vfnet_r50_counts_456_gflop():
    parts, model = parts_of("vfnet_r50_1x")
    assert parts["all"].flops / 1e9 == pytest.approx(456.19, abs=0.01)
    assert parts["all"].parameters == 32_891_554 and parts["all"].trained == 32_666_210
    assert sum(p.flops for n, p in parts.items() if n != "all") == parts["all"].flops
    assert parts["neck"].parameters == 3_868_672 and parts["backbone.layer1"].trained == 0
    # 22,400 places, two kernels of 9 x 256 x 256: the star counts as the plain convolution
    assert parts["head itself"].flops == 2 * 22_400 * 2 * 9 * 256 * 256


@pytest.mark.parametrize("name", ["vfnet_x101_32x4d_dcn_ms_2x", "vfnetx_r2_101_800", "reppoints_r50_fl_1x"])
def test_deformable_convolutions_count(name):
    parts, model = parts_of(name, (64, 64))
    assert parts["all"].parameters == sum(p.numel() for p in model.parameters())
    plain = parts_of(name.replace("_dcn", ""), (64, 64))[0]
    if "_dcn" in name:  # nine samples and their predictor: more than the plain convolution
        assert parts["backbone.layer3"].flops > plain["backbone.layer3"].flops
    if name.startswith("reppoints"):
        points = sum(n * n for n in (8, 4, 2, 1, 1))
        assert parts["head itself"].flops == 2 * points * 2 * 9 * 256 * 256


def test_the_command(capsys):
    summary.main(["atss_r50_vfl_1x", "--size", "320", "200"])
    said = capsys.readouterr().out
    assert "atss_r50_vfl_1x, one image of 320 x 224 pixels" in said and "published: AP val2017 40.2" in said
    assert "32,295,322" in said and "head.center_out" in said
    with pytest.raises(UserError, match="no recipe 'atss'"):
        summary.main(["atss"])

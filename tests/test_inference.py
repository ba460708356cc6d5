"""`vf.detect`: any kind of image, one or many, seen once or in several views, in this or that precision."""

from functools import partial
from types import MappingProxyType

import numpy as np
import pytest
import torch
from recorded import close
from small import small

from vfnet_edu.inference import SCALES, View, detect, for_inference
from vfnet_edu.models.detector import build
from vfnet_edu.postprocess import DetectConfig
from vfnet_edu.runtime.devices import choose_precision, computes
from vfnet_edu.runtime.errors import Exit, UserError


@pytest.fixture
def model():
    model = build(small("vfnet", detect=DetectConfig(min_score=0.0, top_per_level=50)))
    torch.nn.init.normal_(model.head.score_out.weight, std=0.5)  # or all places score alike
    return model.train()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_one_plain_view_is_what_the_detector_answers(model, image):
    from vfnet_edu.data.transforms import resize

    seen = detect(model, image)
    assert model.training  # as it came in
    pixels, _, factors = resize(image, np.zeros((0, 4), np.float32), model.recipe.data.test_scale)
    with torch.no_grad():
        (answer,) = model.eval()([torch.from_numpy(pixels).permute(2, 0, 1)], scales=[factors])
    for a, b in zip(seen, answer, strict=True):
        assert torch.equal(a, b)


def test_many_images_give_a_list_and_weak_boxes_are_left_out(model, image):
    first, second = detect(model, [image, image[:, ::-1]])
    assert torch.equal(first.boxes, detect(model, image).boxes) and not torch.equal(first.boxes, second.boxes)
    assert detect(model, []) == []
    middle = float(first.scores.median())
    kept = detect(model, image, min_score=middle)
    assert 0 < len(kept.scores) < len(first.scores) and kept.scores.min() >= middle


@pytest.mark.parametrize(
    "wrong, says",
    [
        (np.zeros((50, 70, 3), np.float32), "uint8.*not float32"),
        (torch.zeros(3, 50, 70), "uint8.*not float32"),
        (np.zeros((50, 70), np.uint8), r"\(height, width, 3\)"),
        (np.zeros((3, 50, 70), np.uint8), r"\(height, width, 3\)"),
        (torch.zeros(50, 70, 3, dtype=torch.uint8), r"\(3, height, width\)"),
    ],
)
def test_what_is_no_image_is_refused(model, wrong, says):
    with pytest.raises(UserError, match=says) as caught:
        detect(model, wrong)
    assert caught.value.code == Exit.USAGE and "\n" not in str(caught.value)


def test_a_mirrored_view_is_mapped_back(model, image):
    """What the detector sees in the mirrored image, mirrored"""
    mirrored = detect(model, image, views=[View((70, 50), mirror=True)])
    other = detect(model, image[:, ::-1], views=[View((70, 50))])
    close(mirrored.scores, other.scores)
    close(mirrored.boxes[:, [0, 2]], 70 - other.boxes[:, [2, 0]], atol=1e-3)
    close(mirrored.boxes[:, [1, 3]], other.boxes[:, [1, 3]], atol=1e-3)


def test_views_meet_in_one_suppression(model, image):
    views = [View(scale, mirror) for scale in ((70, 50), (105, 75)) for mirror in (False, True)]
    one = [detect(model, image, views=[view]) for view in views]
    all_of_them = detect(model, image, views=views)
    assert len(all_of_them.scores) <= model.recipe.detect.max_detections
    assert all_of_them.scores[0] == max(d.scores[0] for d in one)
    assert (all_of_them.scores[:-1] >= all_of_them.scores[1:]).all()
    best = one[int(torch.stack([d.scores[0] for d in one]).argmax())]
    close(all_of_them.boxes[0], best.boxes[0], atol=1e-3)
    assert (all_of_them.boxes >= 0).all() and (all_of_them.boxes[:, 2] <= 70.01).all()
    assert SCALES == ((1200, 800), (1300, 900), (1500, 1000), (1600, 1200))


def test_detections_are_tensors_like_any_other(model, image):
    found = detect(model, image)
    assert not any(part.is_inference() or part.requires_grad for part in found)
    (found.scores * torch.ones(1, requires_grad=True)).sum().backward()  # a graph may hold them


# ------------------------------------------------------------------ precision
CPU = torch.device("cpu")


def processor(monkeypatch, *instructions):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(dict.fromkeys(instructions, True)))


@pytest.mark.parametrize(
    "instructions, wanted, chosen",
    [
        ((), "auto", "fp32"),
        (("avx512_fp16",), "auto", "fp32"),
        (("avx512_bf16",), "auto", "bf16"),
        (("amx_bf16",), "bf16", "bf16"),
        (("amx_fp16",), "fp16", "fp16"),
        (("avx512_bf16",), "fp32", "fp32"),
    ],
)
def test_a_processor_computes_in_what_it_has_instructions_for(monkeypatch, instructions, wanted, chosen):
    processor(monkeypatch, *instructions)
    assert choose_precision(wanted, CPU) == chosen


@pytest.mark.parametrize("wanted", ["bf16", "fp16"])
def test_what_a_processor_would_imitate_is_refused(monkeypatch, model, image, wanted):
    processor(monkeypatch, "avx2")
    with pytest.raises(UserError, match=f"precision {wanted}: this processor cannot .*avx512_{wanted} or") as caught:
        detect(model, image, precision=wanted)
    assert caught.value.code == Exit.USAGE and "\n" not in str(caught.value)


def test_an_unknown_precision_is_refused(model, image):
    with pytest.raises(UserError, match="no precision 'bf8' .choose one of auto, fp32, bf16, fp16"):
        detect(model, image, precision="bf8")


@pytest.mark.skipif(not computes("bf16", CPU), reason="this processor has no instructions for bf16")
def test_bf16_reaches_the_network_and_stays_there(model, image):
    seen = []
    model.head.score_out.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    precise, rough, auto = (detect(model, image, precision=p) for p in ("fp32", "bf16", "auto"))
    assert set(seen[: len(seen) // 3]) == {torch.float32} and set(seen[len(seen) // 3 :]) == {torch.bfloat16}
    assert rough.boxes.dtype == rough.scores.dtype == torch.float32 and torch.equal(rough.boxes, auto.boxes)
    assert 0 < float((precise.scores[:10] - rough.scores[:10]).abs().max()) < 0.05
    with torch.autocast("cpu", torch.bfloat16):  # what the caller computes in does not matter
        assert torch.equal(detect(model, image).scores, precise.scores)


# ------------------------------------------------------------------ compiled
def test_a_compiled_network_serves_images_of_all_sizes(monkeypatch, model):
    """Traced as for machine code, but run operation by operation: seconds instead of minutes."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled, plain = for_inference(model, compile=True), for_inference(model)
    traced = []
    for size in ((320, 352), (352, 448), (384, 320)):  # across other sizes a convolution may choose another kernel
        batch = torch.randn(1, 3, *size)
        with torch.inference_mode():
            mine, theirs = plain.network(batch), compiled.network(batch)
        close(theirs.logits, mine.logits, rtol=1e-4, atol=1e-5)
        close(theirs.refined, mine.refined, rtol=1e-4, atol=1e-3)
        traced.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(set(traced)) <= 2  # once more at most, when the sizes change for the first time
    torch.compiler.reset()


def test_no_compiler_is_one_line(monkeypatch, model):
    def broken(*args, **options):
        raise RuntimeError("\nNo working C++ compiler found\nand pages of advice\n")

    monkeypatch.setattr(torch, "compile", lambda *args, **options: broken)
    with pytest.raises(UserError, match="torch.compile does not work here: No working C.. compiler found .install"):
        for_inference(model, compile=True)

"""`vf.detect`: any kind of image, one or many, seen once or in several views."""

import numpy as np
import pytest
import torch
from recorded import close
from small import small

from vfnet_edu.inference import SCALES, View, detect
from vfnet_edu.models.detector import build
from vfnet_edu.postprocess import DetectConfig
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

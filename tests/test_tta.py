"""Several views of one image, one answer."""

import numpy as np
import pytest
import torch
from recorded import close
from small import small

from vfnet_edu.inference import predict
from vfnet_edu.models.builder import build
from vfnet_edu.postprocess import DetectConfig
from vfnet_edu.tta import SCALES, predict_views


@pytest.fixture
def model():
    model = build(small("vfnet", detect=DetectConfig(min_score=0.0, top_per_level=50)))
    torch.nn.init.normal_(model.head.score_out.weight, std=0.5)  # or all places score alike
    return model.train()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_one_plain_view_is_predict(model, image):
    seen, plain = predict_views(model, image, [model.recipe.data.test_scale], (False,)), predict(model, image)
    for a, b in zip(seen, plain, strict=True):
        close(a, b, rtol=1e-4, atol=1e-4)
    assert model.training  # as it came in


def test_a_mirrored_view_is_mapped_back(model, image):
    """What the detector sees in the mirrored image, mirrored"""
    scale = [(70, 50)]
    mirrored = predict_views(model, image, scale, (True,))
    other = predict_views(model, np.ascontiguousarray(image[:, ::-1]), scale, (False,))
    close(mirrored.scores, other.scores)
    close(mirrored.boxes[:, [0, 2]], 70 - other.boxes[:, [2, 0]], atol=1e-3)
    close(mirrored.boxes[:, [1, 3]], other.boxes[:, [1, 3]], atol=1e-3)


def test_views_meet_in_one_suppression(model, image):
    scales = [(70, 50), (105, 75)]
    one = [predict_views(model, image, [s], (m,)) for s in scales for m in (False, True)]
    all_of_them = predict_views(model, image, scales)
    assert len(all_of_them.scores) <= model.detect.max_detections
    assert all_of_them.scores[0] == max(d.scores[0] for d in one)
    assert (all_of_them.scores[:-1] >= all_of_them.scores[1:]).all()
    best = one[int(torch.stack([d.scores[0] for d in one]).argmax())]
    close(all_of_them.boxes[0], best.boxes[0], atol=1e-3)
    assert (all_of_them.boxes >= 0).all() and (all_of_them.boxes[:, 2] <= 70.01).all()
    assert SCALES == ((1200, 800), (1300, 900), (1500, 1000), (1600, 1200))

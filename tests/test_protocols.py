"""Whatever a recipe builds is what a detector needs; the type checker reads the signatures, this the names."""

import pytest
import torch

from vfnet_edu import recipes
from vfnet_edu.models.detector import build
from vfnet_edu.models.protocols import Backbone, Head, HeadOutput, Neck

PARTS = {  # kinds of backbone, neck and head -> the first recipe that has them
    tuple(type(part) for part in (recipe.backbone, recipe.neck, recipe.head)): recipe
    for recipe in map(recipes.by_name, reversed(recipes.names()))
}


@pytest.mark.parametrize("recipe", PARTS.values(), ids=lambda recipe: recipe.name)
def test_the_parts_of_a_recipe_are_what_a_detector_needs(recipe):
    with torch.device("meta"):
        model = build(recipe)
        out = model.eval().network(torch.empty(1, 3, 128, 128))
    for part, kind in ((model.backbone, Backbone), (model.neck, Neck), (model.head, Head), (out, HeadOutput)):
        assert isinstance(part, kind)
    assert not isinstance(model.neck, Head) and not isinstance(model.head, HeadOutput)
    assert out.boxes.shape == (*out.logits.shape[:2], 4) and len(out.level_shapes) == len(recipe.head.strides)

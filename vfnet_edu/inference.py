"""One image in, its detections out."""

import numpy as np
import torch

from vfnet_edu.data.images import as_pixels
from vfnet_edu.data.transforms import resize
from vfnet_edu.postprocess import Detections


@torch.no_grad()
def predict(model, image) -> Detections:
    """What a detector sees in one image.

    Args:
        model: a Detector, on any device; left in the mode it came in.
        image: path, PIL image, uint8 tensor (3, h, w) or array (h, w, 3), RGB.  It is resized as its recipe says.

    Returns:
        boxes (D, 4) xyxy in pixels of the given image, scores (D,), labels (D,), best first, on the CPU.

    Raises:
        UserError: code DATA where the file cannot be read as an image.
    """
    resized, _, scale = resize(as_pixels(image), np.zeros((0, 4), np.float32), model.recipe.data.test_scale)
    pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))  # (3, h, w)
    training = model.training
    try:
        return model.eval()([pixels], scales=[scale])[0].to("cpu")
    finally:
        model.train(training)

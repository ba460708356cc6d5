"""Stochastic weight averaging: some more epochs at a high rate, and the mean of the weights that they end with.

Source: Izmailov et al. 2018; for detectors Zhang et al. 2020 (SWA object detection): start from the best weights of
the ordinary run, with a new optimizer; within each epoch the rate falls along a cosine; at its end, where the rate is
lowest, the weights join an equal mean. BatchNorm statistics are frozen in these rows, so nothing needs to be
recomputed for the mean.
"""

import math
from pathlib import Path

from torch.optim.swa_utils import AveragedModel

from vfnet_edu.models.detector import Detector
from vfnet_edu.recipe import SWAConfig
from vfnet_edu.weights import ours


def swa_rate(config: SWAConfig, scale: float, fraction: float) -> float:
    """The learning rate at `fraction` (0 .. 1) of an epoch; `scale` is that of the batch (1 for the recipe's own)."""
    return scale * (config.lr_end + 0.5 * (config.lr - config.lr_end) * (1 + math.cos(math.pi * fraction)))


def start_from_best(model: Detector, folder: Path) -> None:
    """The best weights of the ordinary run, from its folder, into `model`."""
    path = folder / "best.safetensors"
    ours.load_state(model, ours.read(path)[2], path)


def make_average(model: Detector) -> AveragedModel:
    """An equal-weight running mean of parameters; ``.module`` is the averaged detector."""
    return AveragedModel(model)


def join(average: AveragedModel, model: Detector, cycle: int) -> None:
    """Add the weights at the end of `cycle` (from 0) to the mean; once, also when a run is resumed right there."""
    if int(average.n_averaged) == cycle:
        average.update_parameters(model)

"""Explorers: pictures that respond when you move something.  They need ``pip install 'vfnet_edu[notebook]'``.

Each is an ipywidget: its state is kept in step between Python and the page (``w.q = 0.3``, ``w.observe(...)``).  In the
built book the same explorers move without Python.
"""

import importlib

from vfnet_edu.runtime.errors import UserError

_HOME = {  # explorer -> its module here
    "DetectorExplorer": "detector",
    "PyramidExplorer": "pyramid",
    "ReceptiveFieldExplorer": "receptive_field",
    "BoxPairExplorer": "box_pair",
    "RankedListExplorer": "ranked_list",
    "PointTargetsExplorer": "point_targets",
    "AtssExplorer": "atss",
    "ImbalanceExplorer": "imbalance",
    "LossExplorer": "loss",
    "RankingExplorer": "ranking",
    "TrainerExplorer": "trainer",
    "StarExplorer": "star",
    "RefinementExplorer": "refinement",
    "ErrorExplorer": "errors",
    "OracleExplorer": "oracle",
    "OwnSceneExplorer": "own_scene",
    "NmsExplorer": "nms",
    "LaunchGridExplorer": "launch_grid",
    "TensorExplorer": "tensors",
    "RecipeCalculator": "recipe_calculator",
    "TrainingPlanner": "planner",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'vfnet_edu.widgets' has no attribute {name!r}")
    try:
        import anywidget  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the explorers need ipywidgets and anywidget", remedy="pip install 'vfnet_edu[notebook]'"
        ) from error
    return getattr(importlib.import_module(f"vfnet_edu.widgets.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

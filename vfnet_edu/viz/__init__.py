"""Pictures: detections drawn on images, plots of a run, and the report page."""

from vfnet_edu.viz.drawing import compare, draw, draw_targets, render

__all__ = ["compare", "draw", "draw_targets", "render"]

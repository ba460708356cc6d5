"""What `__init__.py` imports when it is first used, for those who do not run it: editors and type checkers."""

from vfnet_edu import boxes as boxes
from vfnet_edu import losses as losses
from vfnet_edu import recipes as recipes
from vfnet_edu import viz as viz
from vfnet_edu.inference import View as View
from vfnet_edu.inference import detect as detect
from vfnet_edu.inference import for_inference as for_inference
from vfnet_edu.losses import focal_loss as focal_loss
from vfnet_edu.losses import quality_focal_loss as quality_focal_loss
from vfnet_edu.losses import varifocal_loss as varifocal_loss
from vfnet_edu.models.detector import build as build
from vfnet_edu.ops.star.operator import star_conv2d as star_conv2d
from vfnet_edu.postprocess import Detections as Detections
from vfnet_edu.recipe import Recipe as Recipe
from vfnet_edu.runtime.source import show as show
from vfnet_edu.weights.mmdet import from_mmdet as from_mmdet
from vfnet_edu.weights.mmdet import to_mmdet as to_mmdet
from vfnet_edu.weights.ours import save as save
from vfnet_edu.weights.zoo import atss_r50 as atss_r50
from vfnet_edu.weights.zoo import foveabox_r50 as foveabox_r50
from vfnet_edu.weights.zoo import load as load
from vfnet_edu.weights.zoo import pretrained as pretrained
from vfnet_edu.weights.zoo import reppoints_r50 as reppoints_r50
from vfnet_edu.weights.zoo import retinanet_r50 as retinanet_r50
from vfnet_edu.weights.zoo import vfnet_r2_101 as vfnet_r2_101
from vfnet_edu.weights.zoo import vfnet_r50 as vfnet_r50
from vfnet_edu.weights.zoo import vfnet_r101 as vfnet_r101
from vfnet_edu.weights.zoo import vfnet_x as vfnet_x
from vfnet_edu.weights.zoo import vfnet_x101_32x4d as vfnet_x101_32x4d
from vfnet_edu.weights.zoo import vfnet_x101_64x4d as vfnet_x101_64x4d

__version__: str

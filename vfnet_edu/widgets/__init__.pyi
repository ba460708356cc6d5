"""What `__init__.py` imports when it is first used, for those who do not run it: editors and type checkers."""

from vfnet_edu.widgets.atss import AtssExplorer as AtssExplorer
from vfnet_edu.widgets.box_pair import BoxPairExplorer as BoxPairExplorer
from vfnet_edu.widgets.detector import DetectorExplorer as DetectorExplorer
from vfnet_edu.widgets.errors import ErrorExplorer as ErrorExplorer
from vfnet_edu.widgets.imbalance import ImbalanceExplorer as ImbalanceExplorer
from vfnet_edu.widgets.launch_grid import LaunchGridExplorer as LaunchGridExplorer
from vfnet_edu.widgets.loss import LossExplorer as LossExplorer
from vfnet_edu.widgets.nms import NmsExplorer as NmsExplorer
from vfnet_edu.widgets.oracle import OracleExplorer as OracleExplorer
from vfnet_edu.widgets.own_scene import OwnSceneExplorer as OwnSceneExplorer
from vfnet_edu.widgets.planner import TrainingPlanner as TrainingPlanner
from vfnet_edu.widgets.point_targets import PointTargetsExplorer as PointTargetsExplorer
from vfnet_edu.widgets.pyramid import PyramidExplorer as PyramidExplorer
from vfnet_edu.widgets.ranked_list import RankedListExplorer as RankedListExplorer
from vfnet_edu.widgets.ranking import RankingExplorer as RankingExplorer
from vfnet_edu.widgets.receptive_field import ReceptiveFieldExplorer as ReceptiveFieldExplorer
from vfnet_edu.widgets.recipe_calculator import RecipeCalculator as RecipeCalculator
from vfnet_edu.widgets.refinement import RefinementExplorer as RefinementExplorer
from vfnet_edu.widgets.star import StarExplorer as StarExplorer
from vfnet_edu.widgets.tensors import TensorExplorer as TensorExplorer
from vfnet_edu.widgets.trainer import TrainerExplorer as TrainerExplorer

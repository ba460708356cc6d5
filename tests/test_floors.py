"""The house has floors: a module imports only from below, and none of our classes inherits from another."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "vfnet_edu"
FLOORS = [  # bottom to top; `<` separates floors within a line
    "runtime.errors < runtime.config runtime.source runtime.files runtime.devices boxes < losses priors",
    "ops.star.reference < ops.star.columns ops.star.triton_kernels ops.dcn < ops.star.embedding_bag ops.star.triton "
    "< ops.star.operator",
    "assigners postprocess",
    "data.coco_stream < data.coco_json data.cache data.images < data.coco data.transforms < data.yolo data.voc "
    "< data.paths < data.annotations < data.loader data.shapes data.survey",
    "models.protocols models.layers models.fold models.backbones.common",
    "models.backbones.resnet models.backbones.res2net models.necks",
    "models.heads.vfnet models.heads.atss models.heads.retinanet models.heads.foveabox models.heads.reppoints",
    "recipe < models.detector",
    "recipes",
    "weights.download < weights.ours weights.mmdet_config weights.hub < weights.imagenet weights.mmdet < weights.zoo",
    "evaluation.average_precision < evaluation.bootstrap "
    "evaluation.calibration < evaluation.scores < evaluation.judge evaluation.oracle evaluation.frozen "
    "evaluation.errors "
    "< evaluation.linear",
    "viz.drawing viz.page viz.chapters < viz.plots viz.data_report viz.error_crops < viz.report",
    "training.meter training.schedule training.averaging training.checkpoint training.card "
    "< training.plan < training.learner < training.advice training.run",
    "inference",
    "evaluate predict",
    "train check doctor convert export summary "
    "< bench.star < bench.tune bench.model bench.data bench.assign bench.losses "
    "bench.errors bench.ranking bench.interval bench.speedrun bench.turns bench.synthetic bench.sizes "
    "< bench.deform bench.peer_detectors bench.peer_data bench.peer_operators < bench.rows < bench.peers",
    "widgets.front_end < widgets.detector widgets.pyramid widgets.box_pair widgets.receptive_field widgets.ranked_list "
    "widgets.point_targets widgets.atss widgets.imbalance widgets.loss widgets.ranking widgets.star widgets.refinement "
    "widgets.launch_grid widgets.errors widgets.oracle widgets.trainer widgets.tensors widgets.planner "
    "< widgets.own_scene widgets.nms widgets.recipe_calculator",
    "exercises.engine < exercises.chapter_00 exercises.chapter_01 exercises.chapter_02 exercises.chapter_03 "
    "exercises.chapter_04 exercises.chapter_05 exercises.chapter_06 exercises.chapter_07 exercises.chapter_08 "
    "exercises.chapter_09 exercises.chapter_10 exercises.chapter_11 exercises.chapter_12 exercises.chapter_13 "
    "exercises.chapter_14 exercises.chapter_15 exercises.chapter_16 exercises.chapter_17 exercises.chapter_18",
    "bench.__main__",
    "__main__",
]
LEVELS = [level.split() for line in FLOORS for level in line.split("<")]
FLOOR = {name: i for i, names in enumerate(LEVELS) for name in names}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(tree):
    """Our own modules that a module imports, at the top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "vfnet_edu":
                yield from (alias.name for alias in node.names)
            elif (node.module or "").startswith("vfnet_edu."):
                inner = node.module.removeprefix("vfnet_edu.")
                for alias in node.names:
                    yield f"{inner}.{alias.name}" if f"{inner}.{alias.name}" in FLOOR else inner
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("vfnet_edu.") for a in node.names if a.name.startswith("vfnet_edu"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    name = name_of(path)
    assert name in FLOOR, f"{name} lives on no floor: add it to FLOORS"
    for below in imports(ast.parse(path.read_text())):
        if below in FLOOR:
            assert FLOOR[below] < FLOOR[name], f"{name} (floor {FLOOR[name]}) imports {below} (floor {FLOOR[below]})"


def test_no_inheritance_deeper_than_one():
    trees = {name_of(p): ast.parse(p.read_text()) for p in MODULES}
    ours = {n.name for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(b).split(".")[-1] for b in node.bases}
                assert not bases & ours, f"{name}.{node.name} inherits from {bases & ours}"


def test_heads_never_see_data_and_triton_has_one_door():
    for path in MODULES:
        name, text = name_of(path), path.read_text()
        if name.startswith("models.heads."):
            assert "vfnet_edu.data" not in text and "vfnet_edu.models.heads" not in text, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                roots = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                if any(r.split(".")[0] == "triton" for r in roots):
                    assert name == "ops.star.triton_kernels", f"{name} imports triton"

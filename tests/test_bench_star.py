"""The benchmarks of star and model run; what they measure is not tested."""

import json

import pytest

from vfnet_edu.bench import model
from vfnet_edu.bench.star import main
from vfnet_edu.runtime.errors import UserError


def test_tables_and_json(tmp_path, capsys):
    report = tmp_path / "star.json"
    main(["--size", "64", "96", "--channels", "32", "--repeats", "1", "--device", "cpu", "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
    assert {row["part"] for row in rows} == {"all levels", "P3", "P4", "P5", "P6", "P7"}
    assert {"torchvision", "reference", "embedding_bag"} < {row["name"] for row in rows}
    assert all(row["forward_ms"] > 0 and row["both_mb"] > 0 for row in rows)
    assert "P7: 1 locations" in capsys.readouterr().out
    assert all(row["both_mb"] > row["both_scratch_mb"] >= 0 for row in rows)


def test_tiles_are_tried_one_by_one(monkeypatch, capsys):
    pytest.importorskip("triton")
    from vfnet_edu.bench import tune
    from vfnet_edu.ops.star import triton_kernels

    if not triton_kernels.INTERPRETED:
        with pytest.raises(UserError, match="no"):
            tune.main(["--device", "cpu"])
        return
    small, saved = triton_kernels.Tile(16, 32, 32, 1), dict(triton_kernels.TILES)
    monkeypatch.setattr(tune, "CANDIDATES", {"forward": (small, small._replace(m=32)), "backward_weight": (small,)})
    size = ["--size", "32", "32", "--channels", "32", "--batch", "1", "--repeats", "1", "--device", "cpu"]
    tune.main([*size, "--kernels", "forward", "backward_weight"])
    out = capsys.readouterr().out
    assert out.count(" ms") == 3 + 2 and out.count("(now)") == 2 and "WRONG" not in out
    assert triton_kernels.TILES == saved


def test_profile_of_a_model(capsys):
    model.main(["vfnet_small", "--size", "64", "64", "--repeats", "1", "--profile", "3", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("vfnet_small") for line in lines) and sum("%" in line for line in lines) == 4

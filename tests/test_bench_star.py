"""The star benchmark runs; what it measures is no test."""

import json

from vfnet_edu.bench.star import main


def test_tables_and_json(tmp_path, capsys):
    report = tmp_path / "star.json"
    main(["--size", "64", "96", "--channels", "32", "--repeats", "1", "--device", "cpu", "--json", str(report)])
    rows = json.loads(report.read_text())["rows"]
    assert {row["part"] for row in rows} == {"all levels", "P3", "P4", "P5", "P6", "P7"}
    assert {"torchvision", "reference", "embedding_bag"} < {row["name"] for row in rows}
    assert all(row["forward_ms"] > 0 and row["both_mb"] > 0 for row in rows)
    assert "P7: 1 locations" in capsys.readouterr().out

"""`make demo` in miniature: the script with its detector, few scenes and short timings.

Its segmenter goes the same way, and is trained and measured in tests/test_cli_runs.py; it would take half a minute.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import memory

DEMO = Path(__file__).parents[2] / "examples/demo.py"


@pytest.mark.slow
def test_demo_in_miniature_writes_models_pictures_and_report(tmp_path, monkeypatch, capsys):
    # Each of the models would start a process of its own for this one figure; tests/benchmarks does it once.
    monkeypatch.setattr(memory, "peak_of", lambda *_: {"peak_bytes": 1, "method": "not measured"})
    specification = importlib.util.spec_from_file_location("demo", DEMO)
    demo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(demo)
    monkeypatch.delitem(demo.MODELS, "segmenter")
    sizes = ("--scenes", "8", "--validation", "2", "--epochs", "1", "--images", "4", "--seconds", "0.2")
    demo.main(["--out", str(tmp_path), *sizes])
    printed = capsys.readouterr().out
    assert "AP50" in printed and "retinanet_resnet10_fpn" in printed and "report.html and PNGs in" in printed
    document = json.loads((tmp_path / "results.json").read_text())
    assert [model["name"].split()[-1] for model in document["models"]] == ["(embedded)", "(fine-tuned)"]
    assert all(model["accuracy"]["images"] == 4 for model in document["models"])
    assert "<svg" in (tmp_path / "report.html").read_text()
    for name in ("streets_hard", "detector"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10
    files = {path.name for path in (tmp_path / "detector").iterdir()}
    assert files == {"best.keras", "final.keras", "history.json", "last.safetensors"}

"""The micro-benchmark: registry, notes, table and files; no figures."""

import importlib
import json
import time

import numpy as np
import pytest

from benchmarks import ops
from benchmarks.ops import OURS, Call, Comparison, Sides, main, measure, needs_backend


def _missing():
    raise ModuleNotFoundError("No module named 'nowhere'")


def _broken():
    raise RuntimeError("does not work\nat all")


def _sides():
    call = Call(lambda array: array + 1, [np.zeros(3, np.float32)])
    peers = {
        "same": lambda: call,
        "plain": lambda: lambda: None,
        "absent": _missing,
        "elsewhere": lambda: needs_backend("numpy"),
        "broken": _broken,
    }
    return Sides(call, peers, {"plain": "does nothing"})


def test_every_side_is_timed_or_says_why_not():
    found = measure(Comparison("add", "three numbers", _sides), repeats=3, pause=0)
    assert (found["op"], found["case"]) == ("add", "three numbers")
    sides = {side["name"]: side for side in found["sides"]}
    assert list(sides) == [OURS, "same", "plain", "absent", "elsewhere", "broken"]
    for name in (OURS, "same", "plain"):
        assert 0 < sides[name]["best"] <= sides[name]["seconds"]
        assert sides[name]["ratio"] == sides[name]["seconds"] / sides[OURS]["seconds"]
    for name, note in {
        "plain": "does nothing",
        "absent": "not installed",
        "elsewhere": "needs KERAS_BACKEND=numpy",
        "broken": "failed: RuntimeError: does not work",
    }.items():
        assert sides[name]["note"] == note
    assert sides["absent"]["seconds"] is sides["absent"]["ratio"] is None


def test_sides_take_turns():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    times = ops._by_turns(runs, 4, 0)
    assert "".join(order) == "aabb" + "baabbaab"
    assert [len(values) for values in times.values()] == [4, 4]


def test_call_runs_on_tensors_and_returns_the_result():
    for open_sizes in (False, True):
        call = Call(lambda a, b: {"sum": a + b}, [np.ones((2, 3), np.float32)] * 2, open_sizes=open_sizes)
        np.testing.assert_array_equal(np.asarray(call.prepare()()["sum"]), 2)


@pytest.fixture
def small_registry(monkeypatch):
    for module in ("ops", "blocks"):  # once, before the registry is replaced
        importlib.import_module(f"benchmarks.peers.{module}")
    monkeypatch.setattr(ops, "REGISTRY", [])
    ops.comparison("add", case="three numbers")(_sides)
    ops.comparison("other", case="never run")(_broken)


@pytest.mark.usefixtures("small_registry")
class TestCommandLine:
    def test_prints_a_table_and_writes_json(self, tmp_path, capsys):
        path = tmp_path / "ops.json"
        assert main(["--only", "add", "--repeats", "1", "--json", str(path)]) == 0
        printed = capsys.readouterr().out
        for text in ("three numbers", "not installed", "does nothing", "ratio"):
            assert text in printed
        document = json.loads(path.read_text())
        assert document["repeats"] == 1 and document["environment"]["backend"]
        assert [result["op"] for result in document["results"]] == ["add"]

    def test_json_on_standard_output_stands_alone(self, capsys):
        main(["--only", "add", "--repeats", "1", "--json", "-"])
        assert json.loads(capsys.readouterr().out)["results"][0]["case"] == "three numbers"

    def test_list_names_the_operations(self, capsys):
        assert main(["--list"]) == 0
        assert capsys.readouterr().out.split() == ["add", "other"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--only", "unheard"], "--only unheard is unknown; use add, other"),
            (["--repeats", "0"], "--repeats 0 must be 1 or more"),
        ],
    )
    def test_mistakes_are_named(self, arguments, message, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_registered_comparisons_cover_what_the_issue_names():
    import benchmarks.peers.ops  # noqa: F401

    named = {entry.op for entry in ops.REGISTRY}
    assert {"nms", "soft_nms", "roi_align", "pairwise_iou", "anchors", "matching", "sigmoid_focal_loss"} <= named
    cases = [(entry.op, entry.case) for entry in ops.REGISTRY]
    assert len(set(cases)) == len(cases)
    for op in ("nms", "soft_nms", "roi_align"):
        assert any(case.startswith("worst") for name, case in cases if name == op)


@pytest.mark.usefixtures("small_registry")
def test_page_says_why_a_peer_is_quicker(tmp_path, monkeypatch):
    def sides(why):
        slow = lambda: time.sleep(0.02)  # noqa: E731
        return lambda: Sides(slow, {"quick": lambda: lambda: None}, why=why)

    monkeypatch.setattr(
        ops, "REGISTRY", [Comparison("wait", "20 ms", sides("it sleeps.")), Comparison("wait", "so", sides(""))]
    )
    assert main(["--repeats", "1", "--markdown", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| `wait` | 20 ms | kerasvision |" in page
    assert "- **wait, 20 ms** (quick): it sleeps." in page
    assert "- **wait, so** (quick): unknown." in page

import numpy as np

from generalist.evaluation.plots import MOST_PANELS, MOST_POINTS, _series, training_plot


def rows(tasks: int, steps: int) -> list[dict]:
    names = [f"{'ab'[i % 2]}/Task{i}" for i in range(tasks)]
    values = {f"loss/{name}": 1.0 for name in names} | {f"family_loss/{f}": 2.0 for f in "ab"}
    return [{"step": step, "loss": 3.0, **values} for step in range(steps)]


def test_each_task_has_a_panel_and_of_many_each_family():
    few = training_plot(rows(3, 20))
    assert all(f">{name}<" in few for name in ("all targets", "a/Task0", "b/Task1", "a/Task2"))
    many = training_plot(rows(MOST_PANELS + 1, 20))
    assert ">all targets<" in many and ">a<" in many and ">b<" in many and "Task" not in many


def test_a_long_run_is_drawn_by_its_means():
    log = [{"step": step, "loss": float(step % 2)} for step in range(40 * MOST_POINTS)]
    steps, values = _series(log, "loss")
    assert len(steps) == MOST_POINTS and np.allclose(values, 0.5) and (np.diff(steps) > 0).all()
    assert len(training_plot(log)) < 100_000
    assert [len(part) for part in _series(log, "loss/nothing")] == [0, 0]

import pytest

from generalist.cli.main import main
from generalist.envs import get_task
from generalist.evaluation.scores import with_error


@pytest.mark.parametrize("family", [None, "gym", "doom"])
def test_names_and_scores_are_shown_whole(family, capsys):
    assert main(["tasks", *([family] if family else [])]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        *("task", "sees", "expert", "random", "expert", "score"),
        "description",
    ]
    weak = lines[-1].startswith("* measured in one episode")
    for line in lines[:-1] if weak else lines:
        assert len(line) <= 140
        name, _, expert = line.split()[:3]
        task = get_task(name)
        assert expert == (task.default_expert or "-")
        for score in (task.random_score, task.expert_score):
            assert score is None or with_error(score.mean, score.stderr) in line
            assert weak or score is None or (score.episodes > 1 and score.max_steps is None)

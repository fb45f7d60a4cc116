"""Settings that may differ from task to task."""

from generalist.settings import named_tasks, setting_of


def test_a_value_holds_for_all_and_a_mapping_for_those_it_names():
    assert setting_of(2, "a/b") == 2
    assert setting_of(None, "a/b") is None
    assert setting_of({"a/b": 0, "default": 3}, "a/b") == 0
    assert setting_of({"a/b": 0, "default": 3}, "c/d") == 3
    assert setting_of({"a/b": 0}, "c/d") is None


def test_a_familys_value_stands_between_a_tasks_own_and_the_default():
    values = {"a/b": 0, "a": 1, "default": 2}
    assert [setting_of(values, task) for task in ("a/b", "a/c", "b/c")] == [0, 1, 2]


def test_the_default_is_no_task():
    assert named_tasks({"a/b": 1, "default": 2}) == ["a/b"]
    assert named_tasks(2) == named_tasks(None) == []

import numpy as np
import pytest

from generalist.episode import (
    Episode,
    IntegerKey,
    path_name,
    tree_from_leaves,
    tree_get,
    tree_leaves,
    tree_map,
    tree_stack,
)
from generalist.errors import GeneralistError

TREE = {"b": (np.zeros((3, 2)), np.ones(3)), "a": {"x": np.arange(3)}}


def episode(**changes):
    return Episode(
        **{
            "task": "gym/CartPole-v1",
            "observations": TREE,
            "actions": np.zeros(3),
            "rewards": [1, 2, 3.5],
            "terminated": True,
            "truncated": False,
            **changes,
        }
    )


def test_steps_and_return():
    assert episode().steps == 3
    assert episode().return_ == 6.5
    assert episode().rewards.dtype == np.float32


def test_leaves_come_in_lexicographic_order_and_rebuild_the_tree():
    leaves = list(tree_leaves(TREE))
    assert [path for path, _ in leaves] == [("a", "x"), ("b", 0), ("b", 1)]
    again = tree_from_leaves(leaves)
    assert isinstance(again["b"], tuple)
    for path, leaf in leaves:
        np.testing.assert_array_equal(tree_get(again, path), leaf)


def test_stack_is_the_inverse_of_taking_steps():
    steps = [tree_map(lambda leaf, t=t: leaf[t], TREE) for t in range(3)]
    for path, leaf in tree_leaves(tree_stack(steps)):
        np.testing.assert_array_equal(leaf, tree_get(TREE, path))


@pytest.mark.parametrize("name", ["observations", "actions", "labels"])
def test_a_leaf_of_another_length_is_refused_and_named(name):
    with pytest.raises(GeneralistError, match=f"{name}.*3 rewards"):
        episode(**{name: np.zeros(4)})


def test_keys_that_are_integers_stay_keys_and_come_before_strings():
    tree = {10: np.zeros(3), 2: (np.ones(3), np.arange(3)), "2": np.full(3, 2), "": np.full(3, 3)}
    leaves = list(tree_leaves(tree))
    assert [path for path, _ in leaves] == [(2, 0), (2, 1), (10,), ("",), ("2",)]
    assert [isinstance(path[0], IntegerKey) for path, _ in leaves] == [True] * 3 + [False] * 2
    again = tree_from_leaves(leaves)
    assert again.keys() == tree.keys() and isinstance(again[2], tuple)
    assert {type(key) for key in again} == {int, str}
    assert tree_map(len, tree)[2] == (3, 3) and tree_stack([tree, tree])[10].shape == (2, 3)


def test_odd_keys_are_quoted_in_the_name_of_a_path():
    assert (
        path_name(("observation", "arm", 0, "joint angle.x")) == "observation/arm/0/joint angle.x"
    )
    assert path_name(("action", "a/b", "")) == "action/'a/b'/''"

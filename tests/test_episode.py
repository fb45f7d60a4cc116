import numpy as np
import pytest

from generalist.episode import (
    Episode,
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

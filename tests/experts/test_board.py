"""The search that plays board games: any state, one label a position, and moves that win."""

from __future__ import annotations

import numpy as np
import pytest

from generalist.envs import get_task, make
from generalist.errors import UsageError
from generalist.experts import collect_episode, expert_names, get_expert, random_episode


@pytest.mark.parametrize(
    "name", ["board/TicTacToe", "board/ConnectFour-4x5", "board/Hex-5x5", "board/Breakthrough-5x5"]
)
def test_a_position_has_one_label_whatever_led_to_it(name: str) -> None:
    env, rng = make(name), np.random.default_rng(0)
    for seed in range(4):
        observation, info = env.reset(seed=seed)
        for _ in range(seed):
            observation, _, over, _, info = env.step(rng.choice(env.legal()))
            if over:
                break
        if not info["action_mask"].any():
            continue
        before = str(env.state)
        labels = []
        for episode_seed in (seed, 99):
            expert = get_expert(name, "mcts@100")
            expert.reset(env, episode_seed)
            labels += [expert.label(observation, env), expert.label(observation, env)]
        assert info["action_mask"][labels[0]] == 1 and len(set(labels)) == 1
        assert str(env.state) == before and env.action_space.contains(labels[0])


@pytest.mark.parametrize("name", ["board/TicTacToe", "board/ConnectFour-4x5", "board/Hex-5x5"])
def test_it_is_far_better_than_random_moves(name: str) -> None:
    env, expert = make(name), get_expert(name, "mcts@400")
    played = [collect_episode(env, name, expert, seed).return_ for seed in range(15)]
    chance = [random_episode(env, name, seed).return_ for seed in range(15)]
    assert np.mean(played) > np.mean(chance) + 0.7, (played, chance)


def test_it_wins_where_it_can_and_prevents_where_it_must() -> None:
    env = make("board/TicTacToe", side="first")
    expert = get_expert("board/TicTacToe")
    for history, best in (([0, 3, 1, 4], 2), ([0, 3, 8, 4], 5), ([4, 0, 8, 2], 1)):
        env.reset(seed=0)
        env.state = env.state.get_game().new_initial_state()
        for move in history:
            env.state.apply_action(move)
        assert expert.label(env.cells(), env) == best


def test_more_simulations_play_better() -> None:
    name = "board/ConnectFour-4x5"
    env = make(name, opponent="mcts@60")
    weak, strong = (
        np.mean([collect_episode(env, name, get_expert(name, who), s).return_ for s in range(20)])
        for who in ("mcts@10", "mcts@600")
    )
    assert strong > weak + 0.3, (weak, strong)


def test_a_budget_is_part_of_the_name() -> None:
    assert expert_names("board/TicTacToe") == ("mcts",)
    assert get_expert("board/TicTacToe", "mcts@50").name == "mcts@50"
    assert get_expert("board/TicTacToe").name == "mcts@1000"
    assert get_task("board/TicTacToe").default_expert == "mcts"
    for name in ("mcts@", "mcts@0", "mcts@-5", "mcts@many"):
        with pytest.raises(UsageError, match="at least 1"):
            get_expert("board/TicTacToe", name)
    with pytest.raises(UsageError, match="no budget"):
        get_expert("gym/CartPole-v1", "lqr@50")
    with pytest.raises(UsageError, match="no expert 'alphazero'"):
        get_expert("board/TicTacToe", "alphazero@50")


@pytest.mark.parametrize("burst_steps", [1.0, 4.0])
def test_a_disturbance_draws_legal_moves(burst_steps: float) -> None:
    """An illegal one would raise; the labels stay the expert's own."""
    name = "board/TicTacToe"
    env, expert = make(name), get_expert(name, "mcts@20")
    episodes = [
        collect_episode(env, name, expert, seed, noise=0.5, burst_steps=burst_steps)
        for seed in range(40)
    ]
    differs = np.concatenate([e.actions != e.labels for e in episodes])
    assert 0.2 < differs.mean() < 0.5  # a random move is now and then the expert's
    for episode in episodes:
        for cells, action, label in zip(
            episode.observations, episode.actions, episode.labels, strict=True
        ):
            assert cells.ravel()[action] == 0 and cells.ravel()[label] == 0

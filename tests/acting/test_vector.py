"""Vector environments of every autoreset mode: the same actions and episodes as one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import generalist
from generalist.acting.agent import Agent
from generalist.decoding.sampling import Sampling
from generalist.envs.vector import VectorEpisodes, split_infos
from generalist.errors import GeneralistError, UsageError
from tests.decoding.models import tiny_agent

CARTPOLE, BOARD, TALK = "gym/CartPole-v1", "board/TicTacToe", "gym/tests.acting.test_vector:Talk-v0"
ROWS, STEPS = 3, 60


class Talk(gymnasium.Env):
    """Episodes of a few steps, each with an instruction, masks of nested actions, and words."""

    observation_space = spaces.Dict({"x": spaces.Discrete(9), "said": spaces.Text(4)})
    action_space = spaces.Dict({"keys": spaces.MultiDiscrete([3, 2]), "gas": spaces.Discrete(4)})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 7))
        return self._seen(), {"instruction": f"go to {self.left}", "action_mask": self._mask()}

    def step(self, action: dict[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.left, "acted past the end of an episode"
        assert self.mask["gas"][action["gas"]], "an action that is not legal"
        assert self.mask["keys"][0][action["keys"][0]], "a key that is not legal"
        self.left -= 1
        return self._seen(), 1.0, self.left == 0, False, {"action_mask": self._mask()}

    def _seen(self) -> dict[str, Any]:
        return {"x": np.int64(self.np_random.integers(9)), "said": "ab"[: self.left % 2 + 1]}

    def _mask(self) -> dict[str, Any]:
        gas = np.zeros(4, np.int8)  # at the end of an episode nothing is legal
        keys = np.zeros(3, np.int8)
        if self.left:
            gas[self.np_random.integers(4)] = keys[self.np_random.integers(3)] = 1
        self.mask = {"gas": gas, "keys": (keys, np.ones(2, np.int8))}
        return self.mask


gymnasium.register("Talk-v0", entry_point=Talk)


def agent_of(task: str) -> Agent:
    return tiny_agent(task, sampling=Sampling(1.0))


def seed_of(row: int, episode: int) -> int:
    return 1000 * row + episode


def alone(task: str, row: int, episodes: int) -> list[list[Any]]:
    """Actions of the first episodes of a row, in an environment of its own."""
    agent, env = agent_of(task), generalist.make(task)
    played: list[list[Any]] = []
    for episode in range(episodes):
        observation, info = env.reset(seed=row if episode == 0 else None)
        done, first = False, True
        played.append([])
        while not done:
            action = agent.act(observation, first, infos=info, seeds=[seed_of(row, episode)])
            played[-1].append(action)
            observation, _, terminated, truncated, info = env.step(action)
            done, first = terminated or truncated, False
    return played


def together(agent: Agent, envs: VectorEpisodes) -> list[list[list[Any]]]:
    """Actions of each row, episode by episode; the last of a row may go on."""
    envs.reset(seed=0)
    played: list[list[list[Any]]] = [[] for _ in range(envs.num_envs)]
    for _ in range(STEPS):
        if envs.mode is AutoresetMode.DISABLED and envs.ended.any():
            envs.reset(options={"reset_mask": envs.ended})
        for row in np.flatnonzero(envs.first):
            played[row].append([])
        seeds = [seed_of(row, len(episodes) - 1) for row, episodes in enumerate(played)]
        actions = agent.act_vector(envs, seeds)
        single = list(gymnasium.vector.utils.iterate(envs.action_space, actions))
        for row in envs.rows:
            played[row][-1].append(single[row])
        envs.step(actions)
    return played


def compare(task: str, played: list[list[list[Any]]]) -> None:
    for row, episodes in enumerate(played):
        whole = alone(task, row, len(episodes))
        assert len(episodes) > 1, "no episode of this row has ended"
        for there, here in zip(episodes, whole, strict=True):
            assert len(there) == len(here) or there is episodes[-1]
            for one, other in zip(there, here, strict=False):
                np.testing.assert_equal(one, other)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("task", [CARTPOLE, BOARD, TALK])
def test_every_autoreset_mode_is_acted_in_as_single_environments_are(
    task: str, mode: AutoresetMode
) -> None:
    envs = SyncVectorEnv([lambda: generalist.make(task)] * ROWS, autoreset_mode=mode)
    compare(task, together(agent_of(task), VectorEpisodes(envs)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: generalist.make_vec(CARTPOLE, ROWS),
        lambda: gymnasium.make_vec("CartPole-v1", ROWS, vectorization_mode="sync"),
        lambda: gymnasium.wrappers.vector.RecordEpisodeStatistics(
            SyncVectorEnv([lambda: generalist.make(CARTPOLE)] * ROWS)
        ),
        lambda: AsyncVectorEnv([lambda: generalist.make(CARTPOLE)] * ROWS),
    ],
    ids=["generalist", "gymnasium", "wrapped", "processes"],
)
def test_environments_of_every_maker(make: Callable[[], Any]) -> None:
    envs = VectorEpisodes(make())
    compare(CARTPOLE, together(agent_of(CARTPOLE), envs))
    envs.close()


def test_environments_that_are_vectors_by_themselves() -> None:
    """CartPole's own, in numpy."""
    envs = VectorEpisodes(gymnasium.make_vec("CartPole-v1", 4))
    assert envs.mode is AutoresetMode.NEXT_STEP
    agent = agent_of(CARTPOLE)
    envs.reset(seed=0)
    for _ in range(40):
        first, ended = envs.first, envs.ended
        actions = agent.act_vector(envs)
        for row in np.flatnonzero(first):  # the context is the header and this timestep
            tokens = len(agent.header().ids) + agent.layout.tokens_per_timestep
            assert len(agent._running.decoder.context(row)) == tokens
        _, _, terminated, truncated, _ = envs.step(actions)
        np.testing.assert_array_equal(envs.first, ended)
        np.testing.assert_array_equal(envs.ended, terminated | truncated)
    assert agent._started > 4, "no episode has ended"


# What a vector environment returns, given to `act` as it is


def test_instructions_are_taken_as_an_array() -> None:
    envs = generalist.make_vec(TALK, ROWS)
    observations, infos = envs.reset(seed=0)
    agent, other = agent_of(TALK), agent_of(TALK)
    first = np.ones(ROWS, bool)
    assert isinstance(infos["instruction"], np.ndarray)
    actions = agent.act(
        observations, first, instructions=infos["instruction"], seeds=range(ROWS), infos=infos
    )
    np.testing.assert_equal(actions, other.act(observations, first, infos=infos, seeds=range(ROWS)))
    for row in range(ROWS):
        header = agent.processor.header(TALK, str(infos["instruction"][row])).tolist()
        assert agent._running.decoder.context(row)[: len(header)].tolist() == header


def test_masks_after_a_masked_reset_are_those_of_the_rows_that_were_reset() -> None:
    envs = generalist.make_vec(BOARD, ROWS)
    observations, infos = envs.reset(seed=0)
    agent = agent_of(BOARD)
    agent.act(observations, np.ones(ROWS, bool), infos=infos)
    ended = np.array([False, True, False])
    observations, infos = envs.reset(options={"reset_mask": ended})
    assert not infos["action_mask"][~ended].any(), "Gymnasium fills up with zeros"
    actions = agent.act(observations, ended, infos=infos)
    assert infos["action_mask"][1][actions[1]]


def test_a_masked_reset_keeps_what_is_known_of_the_other_rows() -> None:
    envs = VectorEpisodes(generalist.make_vec(BOARD, ROWS))
    _, before = envs.reset(seed=0)
    envs.step(agent_of(BOARD).act_vector(envs))
    masks = [info["action_mask"] for info in envs.infos]
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    assert envs.first.tolist() == [False, True, False]
    for row in (0, 2):
        np.testing.assert_array_equal(envs.infos[row]["action_mask"], masks[row])
    assert envs.infos[1]["action_mask"].sum() > masks[1].sum()


def test_infos_are_split_by_their_flags() -> None:
    infos: dict[str, Any] = {}
    envs = generalist.make_vec(CARTPOLE, 3)
    parts = [{"a": np.array([1, 2]), "b": {"c": "x"}}, {}, {"a": np.array([0, 0]), "d": None}]
    for row, part in enumerate(parts):
        infos = envs._add_info(infos, part, row)
    for found, part in zip(split_infos(infos, 3), parts, strict=True):
        np.testing.assert_equal(found, part)


def test_wrong_use_is_said_in_a_sentence() -> None:
    agent = agent_of(CARTPOLE)
    with pytest.raises(GeneralistError, match="1 instructions for 2 environments"):
        agent.act(np.zeros((2, 4), np.float32), np.ones(2, bool), instructions=["go"])
    envs = generalist.make_vec(CARTPOLE, 2)
    envs.autoreset_mode, envs.metadata["autoreset_mode"] = None, "sometimes"
    with pytest.raises(UsageError, match="'sometimes'; expected one of NEXT_STEP"):
        VectorEpisodes(envs)

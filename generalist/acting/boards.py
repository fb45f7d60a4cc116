"""A checkpoint plays boards: prior and value of one forward pass, and a search over the rules.

Legend: B = positions, L = most legal moves, M = moves that the games have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from generalist.acting.checkpoint import FACTS_FILE
from generalist.acting.trees import TreePlan
from generalist.envs.board_games import find_game
from generalist.envs.board_view import Boards, BoardView, CommonBoard, Position
from generalist.episode import Tree
from generalist.errors import UsageError
from generalist.integrity import read_json
from generalist.modeling import PARTS_FOLDER
from generalist.modeling.boards import BoardIds, BoardNetwork
from generalist.modeling.embedders import embedders_of
from generalist.planning.tree import Positions, TreeSearch
from generalist.policy import Decision
from generalist.tokenization.boards import board_layout, common_side
from generalist.tokenization.compact import CompactForm, signatures_of
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.vocabulary import Vocabulary

if TYPE_CHECKING:
    from generalist.acting.agent import Agent

FAMILY = "board/"
SELFPLAY = "selfplay"
"""Key of training.json: boards that a checkpoint, or one it began from, learned by self-play."""


def board_ids(
    tasks: Sequence[str], form: CompactForm, common: CommonBoard, boards: Boards, vocab: Vocabulary
) -> tuple[BoardIds, np.ndarray]:
    """What boards use of a vocabulary, and (games,) which of its tasks each game is.

    Args:
        tasks: names of the games' tasks.
        form: of the model.
        common: the board on which it plays.
        boards: the games.
        vocab: the model's.
    """
    rows = [form.number_of(task) for task in tasks]
    known = sorted(set(rows))
    game = boards.views[0].game
    observation, _ = signatures_of(board_layout(game, common.side, vocab))
    first, returns = vocab["discrete"].start, vocab["return"]
    ids = BoardIds(
        signature=observation.name,
        begin=vocab.special("begin"),
        separator=vocab.special("separator"),
        first_cell=first,
        moves=(first + boards.codes).tolist(),
        # Of 256 bins on [-1, 1] those of the three outcomes; no other return occurs.
        outcomes=[returns.start, returns.start + returns.size // 2, returns.stop - 1],
        tasks=known,
    )
    return ids, np.array([known.index(row) for row in rows])


class NetworkJudge:
    """A network as the judge of a search (see `generalist.planning.tree`).

    Args:
        network: the network.
        boards: the games, as the search numbers them.
        tasks: (games,) which of the network's tasks each game is.
    """

    def __init__(self, network: BoardNetwork, boards: Boards, tasks: np.ndarray) -> None:
        self.network = network
        self._tasks = tasks
        # From a move of the common board to its column of logits; the last entry is that of -1.
        self.columns = np.zeros(boards.common.moves + 1, np.int64)
        self.columns[boards.codes] = np.arange(len(boards.codes))

    def judge(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """As `Judge.judge`: the chances of the moves, and those of a win less those of a loss."""
        device = self.network.device
        cells, task, columns, illegal = (
            torch.from_numpy(each).to(device)
            for each in (
                positions.cells,
                self._tasks[positions.game],
                self.columns[positions.moves],
                positions.moves < 0,
            )
        )
        moves, outcomes = self.network.judge(cells, task)
        with torch.inference_mode():
            priors = moves.gather(1, columns).masked_fill_(illegal, -torch.inf).softmax(1)
            chances = outcomes.softmax(1)
            values = chances[:, 2] - chances[:, 0]
        return priors.float().cpu().numpy(), values.float().cpu().numpy()


class SearchPolicy:
    """A policy that searches the rules of one board game, with a model's priors and values.

    It reads `info["position"]`, which board environments give.

    Args:
        search: over some games.
        number: of the game that it plays, among these.
        view: of that game.
        simulations: of each move.

    Attributes:
        name: `tree@N`.
    """

    def __init__(
        self, search: TreeSearch, *, number: int, view: BoardView, simulations: int
    ) -> None:
        self.name = f"tree@{simulations}"
        self._search, self._number, self._simulations = search, number, simulations
        self._moves = view.game.moves

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`; nothing is kept, and nothing is random."""

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`, with the value of each search."""
        states = [_position(info).state for info in infos]
        found = self._search.search([self._number] * len(states), states, self._simulations)
        chosen = found.positions.actions[np.arange(len(states)), found.best()]
        players = found.positions.player.tolist()
        actions = [self._moves[who][move] for who, move in zip(players, chosen, strict=True)]
        return Decision(actions=np.array(actions), values=found.values)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""


def tree_policy(agent: Agent, plan: TreePlan) -> SearchPolicy:
    """An agent that searches, in its task.

    Raises:
        UsageError: the agent's task is no board game, or the agent knows no boards.
    """
    game = find_game(agent.task.removeprefix(FAMILY)) if is_board(agent.task) else None
    if game is None:
        raise UsageError(
            f"{agent.task} is no board game, and a tree search needs the rules of one; leave out "
            "the plan."
        )
    check_board_plan(plan, agent.task)
    check_can_search(agent)
    side, embedders = common_side(agent.layouts), embedders_of(agent.model)
    assert side is not None and embedders is not None
    common, view = CommonBoard(side), BoardView(game)
    boards = Boards([view], common)
    vocab = agent.processor.vocabulary
    ids, tasks = board_ids([agent.task], embedders.form, common, boards, vocab)
    judge = NetworkJudge(BoardNetwork(agent.model, ids), boards, tasks)
    search = TreeSearch(boards, judge, exploration=plan.exploration)
    return SearchPolicy(search, number=0, view=view, simulations=plan.simulations)


def check_board_plan(plan: TreePlan, task: str) -> None:
    """Raise UsageError where a plan says more than a search on boards takes."""
    if plan.horizon is not None or plan.actions is not None:
        raise UsageError(
            f"In a board game such as {task} a tree search takes simulations and exploration; "
            "leave out horizon and actions."
        )


def check_can_search(agent: Agent) -> None:
    """Raise UsageError where a checkpoint never learned to judge positions by self-play."""
    known = agent.origin.facts.get(SELFPLAY)
    if not known or common_side(agent.layouts) is None or embedders_of(agent.model) is None:
        raise UsageError(
            f"The checkpoint {agent.name or 'given'} was not trained by `generalist selfplay`, so "
            "it cannot judge positions of a board; leave out the plan."
        )


def played_before(source: str | None) -> list[str]:
    """The boards that a checkpoint learned by self-play; none where it is no checkpoint of ours.

    Args:
        source: what a run starts from: a folder, a repository, or None.
    """
    path = Path(source or "") / PARTS_FOLDER / FACTS_FILE
    return read_json(path).get(SELFPLAY, []) if source and path.is_file() else []


def _position(info: Mapping[str, Any]) -> Position:
    position = info.get("position")
    if not isinstance(position, Position):
        raise UsageError("A tree search plays board environments, which say their position.")
    return position


def is_board(task: str) -> bool:
    """Whether a task is a board game."""
    return task.startswith(FAMILY)


def unknown_board_layout(
    task: str, layouts: Mapping[str, Layout], processor: GeneralistProcessor
) -> Layout | None:
    """The layout of a board of a size that a model was not trained on.

    None where the task is no board, or the model plays none.
    """
    side = common_side(layouts)
    game = find_game(task.removeprefix(FAMILY)) if is_board(task) else None
    if side is None or game is None:
        return None
    return board_layout(game, side, processor.vocabulary)

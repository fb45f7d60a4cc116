"""Agent: observations in, actions out, for one environment or many at once.

Legend: N = environments acted in by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from generalist.acting.checkpoint import Checkpoint, check_replaceable
from generalist.acting.hub import checkpoint_folder
from generalist.acting.prompts import Prompts, encode_prompt
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import DEFAULT_TEMPERATURE, Sampling
from generalist.envs.vector import VectorEpisodes, split_infos
from generalist.episode import Episode, Tree, tree_map
from generalist.errors import GeneralistError, UsageError
from generalist.gpu import device_for
from generalist.policy import Decision
from generalist.settings import setting_of
from generalist.shards.strangers import names_new_code
from generalist.tokenization.layout import Layout
from generalist.tokenization.masks import TokenMask, token_masks
from generalist.tokenization.processor import GeneralistProcessor


class Agent:
    """A causal language model that acts in one task.

    model: a Hugging Face causal LM over the processor's vocabulary.
    layouts: of the tasks it was trained on, by name.
    task: what to act in; needed unless there is exactly one layout.
    sampling: how action tokens are chosen; default at temperature 1.
    temperature: of the sampling, perhaps by task; default what `sampling` says.
    window_tokens: longest context; default what the model was trained with.
    context_steps: most timesteps in a context, perhaps by task, as
        `generalist.settings.setting_of` reads it; default as many as fit into the
        window.
    name: where the agent came from, for reports.
    environments: by task the environment it was trained in: `options` as `generalist.make` takes
        them, `spaces` as `space_to_json` says them. A task that is missing: not known.
    origin: the checkpoint it was loaded from, whose recipe, card and facts `save_pretrained` keeps.
    decoder_options: passed on to `Decoder` (keep, backlog_tokens).
    """

    def __init__(
        self,
        model: Any,
        processor: GeneralistProcessor,
        layouts: Mapping[str, Layout],
        task: str | None = None,
        sampling: Sampling | None = None,
        window_tokens: int | None = None,
        context_steps: int | Mapping[str, int] | None = None,
        temperature: float | Mapping[str, float] | None = None,
        name: str = "",
        environments: Mapping[str, Mapping[str, Any]] | None = None,
        origin: Checkpoint | None = None,
        **decoder_options: Any,
    ) -> None:
        self.model = model
        self.processor = processor
        self.layouts = dict(layouts)
        self.temperature = temperature
        self._sampling = sampling or Sampling(DEFAULT_TEMPERATURE)
        self.window_tokens = window_tokens or model.config.max_position_embeddings
        self.context_steps = context_steps
        self.name = name
        self.environments = dict(environments or {})
        self._origin = origin
        self._decoder_options = decoder_options
        self.task = _only_task(self.layouts, name) if task is None else task
        self.sampling = self.sampling_in(self.task)
        self.layout = _layout_of(self.task, self.layouts, name)
        self._decoder: Decoder | None = None
        self._waiting: dict[int, tuple[int, str | None]] = {}  # seed and instruction, by slot
        self._prompts = Prompts()
        self._started = 0  # episodes started so far: the default seed of the next

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        task: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
        temperature: float | None = None,
        top_p: float = 1.0,
        ordinal: Literal["mode", "mean", "median"] = "mode",
        window_tokens: int | None = None,
        context_steps: int | Mapping[str, int] | None = None,
        layout: Layout | None = None,
        prompts: Sequence[Episode] = (),
        **decoder_options: Any,
    ) -> Agent:
        """Load a checkpoint: a plain Hugging Face model with `generalist/` beside it.

        path: its folder, or its repository on the Hub, `user/name` or `user/name@revision`.
        device: default a GPU where there is one.
        window_tokens, context_steps: default what the checkpoint was trained with.
        temperature: default what its recipe says of acting in the task.
        layout: lets it act in a task it was not trained on; `processor.layout` makes one.
        Raises GeneralistError where a file is missing, damaged or made for another vocabulary and
        where weights are missing, and UsageError where there is no such device or the checkpoint
        does not know the task.
        """
        device = device_for(device)
        checkpoint = Checkpoint.read(checkpoint_folder(path), device=device, dtype=dtype)
        layouts, facts = dict(checkpoint.layouts), checkpoint.facts
        if layout is not None and task is not None:
            layouts[task] = layout
        agent = cls(
            checkpoint.model,
            checkpoint.processor,
            layouts,
            task,
            Sampling(DEFAULT_TEMPERATURE, top_p, ordinal),
            window_tokens or facts.get("window_tokens"),
            facts.get("context_steps") if context_steps is None else context_steps,
            facts.get("temperature") if temperature is None else temperature,
            str(path),
            facts.get("environments"),
            checkpoint,
            **decoder_options,
        )
        if prompts:
            agent.set_prompts(prompts)
        return agent

    def save_pretrained(self, path: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads; replaces an older one.

        What was said of the training of a checkpoint that was loaded is kept. Raises UsageError
        where the folder holds other things.
        """
        check_replaceable(Path(path))
        origin = self._origin
        Checkpoint(
            model=self.model,
            processor=self.processor,
            layouts=self.layouts,
            facts={
                **({} if origin is None else origin.facts),
                "window_tokens": self.window_tokens,
                "context_steps": self.context_steps,
                "temperature": self.temperature,
                "environments": self.environments,
            },
            recipe=None if origin is None else origin.recipe,
            card=None if origin is None else origin.card,
        ).write(Path(path))

    def for_task(self, task: str, layout: Layout | None = None) -> Agent:
        """An agent for another task that shares this one's weights and settings."""
        layouts = self.layouts if layout is None else {**self.layouts, task: layout}
        return Agent(
            self.model,
            self.processor,
            layouts,
            task,
            self._sampling,
            self.window_tokens,
            self.context_steps,
            self.temperature,
            self.name,
            self.environments,
            self._origin,
            **self._decoder_options,
        )

    def sampling_in(self, task: str) -> Sampling:
        """How actions are chosen in a task, at its own temperature where it has one."""
        own = setting_of(self.temperature, task)
        return self._sampling if own is None else replace(self._sampling, temperature=own)

    def set_prompts(
        self, episodes: Sequence[Episode], part: Literal["start", "end"] = "end"
    ) -> None:
        """Begin every later episode with a demonstration: number i modulo n of n in episode i.

        Those of the episode's own instruction are taken, where demonstrations have instructions.
        part: which end of a demonstration is kept where it exceeds a quarter of the window.
        No episodes: act without prompts again.
        """
        self._prompts = Prompts(
            episodes,
            lambda each: encode_prompt(each, self.processor, self.layout, self.window_tokens, part),
        )

    @property
    def prompted(self) -> bool:
        """True while episodes begin with a demonstration."""
        return bool(self._prompts)

    def act(
        self,
        observations: Tree,
        first: bool | np.ndarray | None = None,
        instructions: str | Sequence[str | None] | np.ndarray | None = None,
        slots: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
        action_masks: Any = None,
        infos: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Tree:
        """The next action, or N of them.

        observations: of one environment where `first` is a bool (or None), else a batch: a tree
            of arrays with leading axis N, as a Gymnasium vector environment returns it.
        first: True where an episode begins with this observation; (N,) bool for a batch.
            None: one environment, whose episode begins at the first call.
        instructions: what to do, in words, where an episode begins; one for each environment.
        slots: which running sequences these N are, where not all are acted in; default 0..N-1.
        seeds: of the sampling and of the choice among prompts, where an episode begins; the
            action then depends on nothing outside its own episode.
        action_masks: which actions are legal now, as Gymnasium environments say in
            `info["action_mask"]` and the action space's `sample` takes it: (n,) flags for a
            `Discrete`, a tuple of such for a `MultiDiscrete`, and so on. For a batch N masks, of
            which some may be None. Other actions are never chosen.
        infos: what the environment returned besides the observation, in place of `instructions`
            and `action_masks`: an environment's info, a vector environment's infos, or N infos.
        Returns an action, or a batch of actions with leading axis N, of the action space's dtype.
        """
        if first is None or isinstance(first, (bool, np.bool_)):
            return self._act_alone(
                observations, first, instructions, slots, seeds, action_masks, infos
            )
        if self.layout.is_document:
            raise UsageError(
                f"{self.task} is text to be read on, not an environment; use generate_text."
            )
        first = np.asarray(first, dtype=bool)
        ids = self.processor.encode_observations(observations, self.layout, self.task)
        if first.shape != (len(ids),):
            raise GeneralistError(
                f"Got {len(ids)} observations, but `first` has shape {first.shape}; expected one "
                "flag for each observation."
            )
        slots = list(range(len(ids))) if slots is None else [int(slot) for slot in slots]
        if infos is not None:
            rows = split_infos(infos, len(ids)) if isinstance(infos, Mapping) else infos
            if instructions is None:
                instructions = [info.get("instruction") for info in rows]
            if action_masks is None:
                action_masks = [info.get("action_mask") for info in rows]
        if instructions is None or isinstance(instructions, str):
            instructions = [instructions] * len(slots)
        if len(instructions) != len(slots):
            raise GeneralistError(
                f"Got {len(instructions)} instructions for {len(slots)} environments."
            )
        masks = None if action_masks is None else self._checked_masks(action_masks, len(slots))
        self._begin(slots, first, list(instructions), seeds)
        assert self._decoder is not None
        positions = self.layout.positions
        chosen = self._decoder.act(
            slots,
            self.layout.weave({"observation": ids}).tolist(),
            [self.layout.legal] * len(slots),
            [(positions.bins[positions.chosen] >= 0).tolist()] * len(slots),
            self.sampling,
            masks,
        )
        self._started += int(first.sum())  # not before: an interrupted call may be repeated
        return self.processor.decode_actions(np.stack(chosen), self.layout)

    def begin(
        self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Mapping[str, Any]]
    ) -> None:
        """As `Policy.begin`; the seed also chooses among the prompts."""
        for slot, seed, info in zip(slots, seeds, infos, strict=True):
            self._waiting[slot] = int(seed), info.get("instruction")

    def decide(
        self, observations: Tree, infos: Sequence[Mapping[str, Any]], slots: Sequence[int]
    ) -> Decision:
        """As `Policy.decide`."""
        first = [slot in self._waiting for slot in slots]
        begun = [self._waiting.get(slot, (0, None)) for slot in slots]
        masks = [info.get("action_mask") for info in infos]
        actions = self.act(
            observations,
            np.array(first),
            [told for _, told in begun],
            slots,
            [seed for seed, _ in begun],
            None if all(mask is None for mask in masks) else masks,
        )
        for slot in slots:
            self._waiting.pop(slot, None)
        return Decision(actions=actions)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        self.release(slots)

    def act_vector(self, envs: VectorEpisodes, seeds: Sequence[int] | None = None) -> Tree:
        """The next actions of a vector environment, in any autoreset mode.

        seeds: one for each of its N rows, used where an episode begins, as `act` has them.
        Returns a tree of arrays with leading axis N, for `envs.step`.
        """
        rows = envs.rows
        if not len(rows):
            return envs.actions(None)
        chosen = self.act(
            envs.row_observations,
            envs.first[rows],
            slots=rows.tolist(),
            seeds=None if seeds is None else [seeds[row] for row in rows],
            infos=[envs.infos[row] for row in rows],
        )
        return envs.actions(chosen)

    def _act_alone(
        self,
        observation: Tree,
        first: bool | None,
        instruction: str | Sequence[str | None] | np.ndarray | None,
        slots: Sequence[int] | None,
        seeds: Sequence[int] | None,
        mask: Any,
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    ) -> Tree:
        if first is None:
            first = self._decoder is None
        batch = tree_map(lambda leaf: np.asarray(leaf)[None], observation)
        instructions = [instruction] if isinstance(instruction, str) else instruction
        masks = None if mask is None else [mask]
        infos = [info] if isinstance(info, Mapping) else info
        actions = self.act(batch, np.array([first]), instructions, slots, seeds, masks, infos)
        return tree_map(lambda leaf: leaf[0], actions)

    def _checked_masks(
        self, masks: Sequence[Any], environments: int
    ) -> list[list[TokenMask]] | None:
        """The legal ids of each action token of each environment."""
        if len(masks) != environments:
            raise GeneralistError(
                f"Got {len(masks)} masks of legal actions for {environments} environments."
            )
        if all(mask is None for mask in masks):
            return None
        try:
            return [token_masks(self.layout, mask) for mask in masks]
        except GeneralistError as error:
            raise GeneralistError(f"{self.task}: {error}") from None

    def release(self, slots: Sequence[int] | None = None) -> None:
        """Forget the running sequences in these slots, or all with the memory they held."""
        if slots is None:
            self._decoder = None
        elif self._decoder is not None:
            for slot in slots:
                self._decoder.release(slot)

    def _begin(
        self,
        slots: list[int],
        first: np.ndarray,
        instructions: Sequence[str | None],
        seeds: Sequence[int] | None,
    ) -> None:
        """Reset the slots where an episode begins."""
        self._require_slots(1 + max(slots), bool(first.all()))
        assert self._decoder is not None
        numbers = self._started + np.cumsum(first) - first  # of the episodes that begin
        for i, slot in enumerate(slots):
            if first[i]:
                seed = int(numbers[i] if seeds is None else seeds[i])
                self._decoder.reset(slot, self.header(instructions[i], seed), seed)
            elif not self._decoder.running(slot):
                raise GeneralistError(
                    f"Environment {slot} has not begun: pass first=True with the first "
                    "observation of its episode."
                )

    def header(self, instruction: str | None = None, episode: int = 0) -> list[int]:
        """Ids at the head of the window: task, instruction, demonstration."""
        ids = self.processor.header(self.task, instruction).tolist()
        return ids + self._prompts.of(instruction, episode)

    def _require_slots(self, count: int, all_begin: bool) -> None:
        if self._decoder is not None and count <= len(self._decoder):
            return
        if self._decoder is not None and not all_begin:
            raise GeneralistError(
                f"The number of environments grew from {len(self._decoder)} to {count} in the "
                "middle of episodes; start them all with first=True, or make a new Agent."
            )
        self._decoder = self.new_decoder(count)

    def new_decoder(self, slots: int) -> Decoder:
        """A decoder over this agent's model and window."""
        options = dict(self._decoder_options)
        steps = setting_of(self.context_steps, self.task)
        if steps is not None and not self.layout.is_document:
            options["body_tokens"] = steps * self.layout.tokens_per_timestep
        return Decoder(self.model, slots, self.window_tokens, **options)


def _only_task(layouts: Mapping[str, Layout], name: str) -> str:
    if len(layouts) == 1:
        (task,) = layouts
        if names_new_code(task):
            raise UsageError(
                f"The checkpoint {name or 'given'} knows {task!r} alone, which names a module to "
                "import. That is done only where you name the task yourself: pass task=."
            )
        return task
    raise UsageError(
        f"The checkpoint {name or 'given'} knows {len(layouts)} tasks; say which to act in: "
        f"{', '.join(sorted(layouts))}."
    )


def _layout_of(task: str, layouts: Mapping[str, Layout], name: str) -> Layout:
    if task not in layouts:
        raise UsageError(
            f"The checkpoint {name or 'given'} was not trained on {task!r}; it knows "
            f"{', '.join(sorted(layouts)) or 'no task'}. To act in it all the same, pass "
            f"layout=processor.layout(env.observation_space, env.action_space, task={task!r})."
        )
    return layouts[task]

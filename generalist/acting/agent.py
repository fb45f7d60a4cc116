"""Agent: observations in, actions out, for one environment or many at once.

Legend: N = environments decided for by one call, k = action tokens of a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from generalist.acting.actor import Actor, Info
from generalist.acting.checkpoint import (
    SETTINGS,
    Checkpoint,
    check_replaceable,
    layout_of,
    only_task,
)
from generalist.acting.choices import choices_of
from generalist.acting.forms import Header, form_of
from generalist.acting.hub import checkpoint_folder
from generalist.acting.prompts import Prompts, encode_prompt
from generalist.acting.running import RunningEpisodes
from generalist.acting.taken import TakenActions
from generalist.acting.wanted import WantedReturn, WantedReturns
from generalist.decoding.decoder import Decoder
from generalist.decoding.sampling import DEFAULT_TEMPERATURE, Choice, Sampling
from generalist.decoding.timestep import Chosen
from generalist.envs.instructions import DEMONSTRATED
from generalist.episode import Episode, Tree
from generalist.errors import GeneralistError, UsageError
from generalist.gpu import device_for
from generalist.modeling.embedders import embedders_of
from generalist.policy import Decision
from generalist.settings import setting_of
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.returns import TaskReturns


class Agent(Actor):
    """A causal language model that acts in one task: a `Policy`, with `act` for people.

    Args:
        model: a Hugging Face causal LM over the processor's vocabulary.
        processor: the processor.
        layouts: of the tasks it was trained on, by name.
        task: what to act in; needed unless there is exactly one layout.
        sampling: how action tokens are chosen; None for temperature 1.
        temperature: of the sampling, perhaps by task; None for what `sampling` says.
        window_tokens: longest context; None for what the model was made for.
        context_steps: most timesteps in a context, perhaps by task, as
            `generalist.settings.setting_of` reads it; None for as many as fit into the window.
        guidance: lambda of classifier-free guidance by the instruction: how far the logits go from
            those without the instruction (0) to those with it (1), or beyond. It costs a second
            row for each environment. None: act by the instruction, in one row.
        log_probs: say in each `Decision` how probable its ids were, which takes a little time.
        name: where the agent came from, for reports.
        wanted_return: what episodes are asked for, as `checked_return` takes it; None for nothing.
        returns: by task what its data say of returns, as `TaskReturns.to_dict` has it. A task that
            is missing was trained without.
        worlds: by task what its data say of outcomes, as `TaskWorld.to_dict` has it. In a task that
            is missing nothing can be planned.
        environments: by task the environment it was trained in: `options` as `generalist.make`
            takes them, `spaces` as `space_to_json` says them. A task that is missing is not known.
        origin: the checkpoint it was loaded from, whose recipe, card and facts `save_pretrained`
            keeps.
        decoder_options: passed on to `Decoder` (keep, backlog_tokens, on_logits).

    Raises:
        UsageError: there is no layout for the task, or none can be chosen.
    """

    def __init__(
        self,
        model: Any,
        processor: GeneralistProcessor,
        layouts: Mapping[str, Layout],
        *,
        task: str | None = None,
        sampling: Sampling | None = None,
        temperature: float | Mapping[str, float] | None = None,
        window_tokens: int | None = None,
        context_steps: int | Mapping[str, int] | None = None,
        guidance: float | None = None,
        log_probs: bool = False,
        name: str = "",
        wanted_return: WantedReturn | str | float | None = None,
        returns: Mapping[str, Mapping[str, Any]] | None = None,
        worlds: Mapping[str, Mapping[str, Any]] | None = None,
        environments: Mapping[str, Mapping[str, Any]] | None = None,
        origin: Checkpoint | None = None,
        **decoder_options: Any,
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.layouts = dict(layouts)
        self.task = only_task(self.layouts, name) if task is None else task
        self.layout = layout_of(self.task, self.layouts, name)
        self.window_tokens = window_tokens or model.config.max_position_embeddings
        self.context_steps = context_steps
        self.temperature = temperature
        self.guidance = guidance
        self.log_probs = log_probs
        self.name = name
        self.environments = dict(environments or {})
        self.returns, self.worlds = dict(returns or {}), dict(worlds or {})
        self.origin = origin or Checkpoint(model=model, processor=processor, layouts=layouts)
        self._sampling = sampling or Sampling(DEFAULT_TEMPERATURE)
        self.sampling = self.sampling_in(self.task)
        self.form = form_of(embedders_of(model), processor, self.task, self.layout)
        self._choices = choices_of(self.layout, self.sampling, task=self.task)
        self.decoder_options = decoder_options
        self._asks: WantedReturns | None = None
        if self.task in self.returns:
            first_id = processor.vocabulary["return"].start
            self._asks = WantedReturns(TaskReturns.from_dict(self.returns[self.task]), first_id)
        self.wanted_return = None if wanted_return is None else WantedReturn.parse(wanted_return)
        self._prompts = Prompts()
        self._running = RunningEpisodes(self.new_decoder)
        self._taken = TakenActions(self.form, self.layout, processor.toolbox)
        self._seeds: dict[int, int] = {}  # of the episode in each slot

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        task: str | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
        temperature: float | None = None,
        top_p: float = 1.0,
        ordinal: Literal["mode", "mean", "median"] = "mode",
        layout: Layout | None = None,
        prompts: Sequence[Episode] = (),
        **options: Any,
    ) -> Agent:
        """Load a checkpoint: a plain Hugging Face model with `generalist/` beside it.

        Args:
            path: its folder, or its repository on the Hub, `user/name` or `user/name@revision`.
            task: what to act in; needed unless the checkpoint knows exactly one task.
            device: where the model runs; None for a GPU where there is one.
            dtype: of the weights, `float32` or `bfloat16`.
            temperature: None for what its recipe says of acting in the task.
            top_p: draw only among the likeliest ids that together reach this probability.
            ordinal: what temperature 0 takes of the bins of a real number.
            layout: lets it act in a task it was not trained on; `processor.layout` makes one.
            prompts: demonstrations that episodes begin with; see `set_prompts`.
            options: others of the constructor; `window_tokens` and `context_steps` are by default
                what the checkpoint was trained with.

        Raises:
            GeneralistError: a file is missing, damaged or made for another vocabulary, or weights
                are missing.
            UsageError: there is no such device, or the checkpoint does not know the task.
        """
        found = Checkpoint.read(checkpoint_folder(path), device=device_for(device), dtype=dtype)
        known = {} if layout is None or task is None else {task: layout}
        given = {"temperature": temperature, **options}
        given = {name: value for name, value in given.items() if value is not None}
        agent = cls(
            found.model,
            found.processor,
            {**found.layouts, **known},
            task=task,
            sampling=Sampling(DEFAULT_TEMPERATURE, top_p, ordinal),
            name=str(path),
            origin=found,
            **{**found.settings, **given},
        )
        agent.set_prompts(prompts)
        return agent

    def save_pretrained(self, path: str | Path) -> None:
        """Write a checkpoint that `from_pretrained` reads; replaces an older one.

        What was said of the training of a checkpoint that was loaded is kept.

        Raises:
            UsageError: the folder holds other things.
        """
        check_replaceable(Path(path))
        facts = {**self.origin.facts, **{name: getattr(self, name) for name in SETTINGS}}
        replace(self.origin, layouts=self.layouts, facts=facts).write(Path(path))

    def for_task(self, task: str, layout: Layout | None = None) -> Agent:
        """An agent for another task that shares this one's weights and settings.

        Args:
            task: name of the task.
            layout: of a task that is not among `layouts`.
        """
        layouts = self.layouts if layout is None else {**self.layouts, task: layout}
        own = ("guidance", "log_probs", "name", "origin")
        shared = {name: getattr(self, name) for name in (*SETTINGS, *own)}
        shared |= {"sampling": self._sampling, **self.decoder_options}
        shared["wanted_return"] = self.wanted_return
        return Agent(self.model, self.processor, layouts, task=task, **shared)

    def sampling_in(self, task: str) -> Sampling:
        """How actions are chosen in a task, at its own temperature where it has one."""
        own = setting_of(self.temperature, task)
        return self._sampling if own is None else replace(self._sampling, temperature=own)

    def set_temperature(self, temperature: float | None) -> None:
        """Choose at this temperature from the next timestep on; None: as before any was set."""
        self.sampling = self.sampling_in(self.task)
        if temperature is not None:
            self.sampling = replace(self.sampling, temperature=temperature)
        self._choices = choices_of(self.layout, self.sampling, task=self.task)

    def checked_return(
        self, wanted: WantedReturn | str | float | None = None
    ) -> tuple[WantedReturn | None, str | None]:
        """What an episode is asked for, and what to say of it where it is beyond the data.

        Args:
            wanted: `expert`, a number, or a percentage of the way from the worst to the best of the
                data such as `80%`; None for the agent's own setting.

        Raises:
            UsageError: it is written otherwise, or the task was trained without returns.
        """
        if wanted is None and (wanted := self.wanted_return) is None:
            return None, None
        found = WantedReturn.parse(wanted)
        if self._asks is None:
            why = (
                f"{self.task} has no returns in it: in its data all were the same, or it had none"
                if self.returns
                else "it was trained without returns"
            )
            raise UsageError(
                f"No return can be asked for of the checkpoint {self.name or 'given'}, because "
                f"{why}. Train it by a recipe with `returns`, such as mixed."
            )
        if found.kind == "expert":
            found.tilt(self._asks.returns)  # says what is wrong with its bounds
        return found, found.note(self._asks.returns, self.task)

    def set_prompts(
        self, episodes: Sequence[Episode], part: Literal["start", "end"] = "end"
    ) -> None:
        """Begin every later episode with a demonstration: number i modulo n of n in episode i.

        Those of the episode's own instruction are taken, where demonstrations have instructions.

        Args:
            episodes: the demonstrations; none to act without prompts again.
            part: which end of a demonstration is kept where it exceeds a quarter of the window.
        """
        self._prompts = Prompts(
            episodes,
            lambda each: encode_prompt(
                each,
                self.processor,
                self.layout,
                self.window_tokens,
                part,
                positions=self.form.demonstration_positions,
            ),
        )

    @property
    def prompted(self) -> bool:
        """True while episodes begin with a demonstration."""
        return bool(self._prompts)

    def header(
        self, instruction: str | None = None, episode: int = 0, *, shown: str | None = None
    ) -> Header:
        """What stands at the head of the window: task, instruction, demonstration.

        Args:
            instruction: what the words say; None: nothing.
            episode: chooses among the demonstrations.
            shown: the instruction that is demonstrated. Default: the one in words.
        """
        return self.form.header(instruction, self._prompts.of(shown or instruction, episode))

    def begin(self, slots: Sequence[int], seeds: Sequence[int], infos: Sequence[Info]) -> None:
        """As `Policy.begin`; the seed also chooses among the prompts."""
        for slot, seed, info in zip(slots, seeds, infos, strict=True):
            wanted, _ = self.checked_return(info.get("wanted_return"))
            if self._asks is not None:
                self._asks.begin(slot, wanted)
            self._seeds[slot] = seed
            told = [info.get("instruction"), None]  # the second is guided away from
            for row, instruction in zip(self._rows([slot]), told, strict=False):
                header = self.header(instruction, seed, shown=info.get(DEMONSTRATED))
                self._running.begin(row, header, seed)

    def rehead(self, slot: int, told: str | None, demonstration: Sequence[int]) -> None:
        """Give a running episode another header; the timesteps it has seen stay.

        Args:
            slot: of the episode.
            told: what the words say.
            demonstration: ids as `encode_prompt` returns them.
        """
        for row, words in zip(self._rows([slot]), [told, None], strict=False):
            self._running.rehead(row, self.form.header(words, demonstration))

    def decide(self, observations: Tree, infos: Sequence[Info], slots: Sequence[int]) -> Decision:
        """As `Policy.decide`. Where it raises, the call may be repeated.

        It takes k forward passes, and one in the compact form, two where a return is drawn.
        """
        if self.layout.is_document:
            raise UsageError(
                f"{self.task} is text to be read on, not an environment; use generate_text."
            )
        seen = self.processor.encode_observations(observations, self.layout, self.task)
        if len(seen) != len(slots):
            raise GeneralistError(
                f"Got {len(seen)} observations for {len(slots)} environments; expected one slot, "
                "or one flag for each observation."
            )
        for slot, info in zip(slots, infos, strict=True):
            if (told := info.get("new_instruction")) is not None:
                header = self.header(told, self._seeds.get(slot, 0))
                self._running.rehead(self._rows([slot])[0], header)
        masks = [info.get("action_mask") for info in infos]
        choices = [self._choices if mask is None else self._choices_under(mask) for mask in masks]
        rows = self._rows(slots)
        decoder = self._running.ready(rows)
        self._taken.correct(decoder, rows, [*infos] * (len(rows) // len(slots)))
        asked = None if self._asks is None else self._asks.asked(slots, infos)
        given = decoder, rows, seen, choices
        chosen = self.form.act(
            *given, log_probs=self.log_probs, asked=asked, guidance=self.guidance
        )
        self._running.settle(rows)
        self._taken.see(rows, np.tile(seen, (len(rows) // len(slots), 1)))
        if self._asks is not None:
            self._asks.settle()
        ids = np.array(chosen.ids, dtype=np.int64)
        return Decision(
            actions=self.processor.decode_actions(ids, self.layout),
            ids=ids,
            log_probs=np.array(chosen.log_probs, np.float32) if self.log_probs else None,
            values=self._values(chosen),
        )

    def _values(self, chosen: Chosen) -> np.ndarray | None:
        """(N,) float32 means of the returns-to-go that are expected; None where none were read."""
        if chosen.values is None or self._asks is None:
            return None
        shares = chosen.values.float().softmax(-1).cpu().numpy()
        return (shares @ self._asks.returns.centres).astype(np.float32)

    def end(self, slots: Sequence[int]) -> None:
        """As `Policy.end`."""
        super().end(slots)
        self._running.end(self._rows(slots))
        self._taken.end(self._rows(slots))
        if self._asks is not None:
            self._asks.end(slots)
        for slot in slots:
            self._seeds.pop(slot, None)

    def release(self) -> None:
        """Forget all episodes, with the memory they held."""
        super().release()
        self._running.release()

    def _rows(self, slots: Sequence[int]) -> list[int]:
        """The decoder's slots of these: their own, and with guidance those without instruction."""
        if self.guidance is None:
            return list(slots)
        return [*(2 * slot for slot in slots), *(2 * slot + 1 for slot in slots)]

    def _choices_under(self, mask: Any) -> list[Choice]:
        return choices_of(self.layout, self.sampling, task=self.task, mask=mask)

    def new_decoder(self, slots: int, header_tokens: int | None = None) -> Decoder:
        """A decoder over this agent's model and window.

        Args:
            slots: of the decoder.
            header_tokens: most of a header, where that is known: then rows are as long as contexts
                can be, and many of them take less memory.
        """
        options, window = dict(self.decoder_options), self.window_tokens
        steps = setting_of(self.context_steps, self.task)
        if steps is not None and not self.layout.is_document:
            options["body_tokens"] = body = steps * self.form.positions
            if header_tokens is not None:
                window = min(window, header_tokens + body)
        return Decoder(self.model, slots, window, **options)

"""Around the loop: the accelerator, checks of what really runs, and signals."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Literal

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, KwargsHandler, LoggerType
from torch import distributed

from generalist.errors import GeneralistError, UsageError
from generalist.gpu import has_triton
from generalist.specs import nearest
from generalist.training.objective import TokenObjective
from generalist.training.recipe import Recipe
from generalist.training.strategies.replicated import Replicated
from generalist.training.strategies.strategy import Strategy


@contextmanager
def torch_settings_kept() -> Iterator[None]:
    """Restore the settings of torch that training changes for speed, in the calling thread.

    They would outlive a run: a caller from Python would go on with one thread and without
    subnormal numbers.
    """
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)  # torch's default; torch does not reveal the previous value


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Start the accelerator of a run, and check that it has the processes that were launched.

    Call this within `torch_settings_kept`.

    Args:
        recipe: the recipe, with the sizes of the model that training starts from.

    Raises:
        UsageError: a tracker or the DeepSpeed configuration does not exist.
        GeneralistError: the processes are not connected.
    """
    # Denormal gradients and moments make CPUs many times slower.
    torch.set_flush_denormal(True)
    check_trackers(recipe.trackers)
    check_deepspeed_file()
    on_cpu = not torch.cuda.is_available()
    _meet_anew("gloo" if on_cpu else "nccl")
    # The lean pass does without autocast.
    autocast = resolve_precision(recipe) == "bf16" and not is_alone_on_cpu(recipe)
    deepspeed = _asked_for("DEEPSPEED")
    # cpu=True makes several CPU ranks meet over gloo. Without it, accelerate makes a process group
    # but silently neither wraps the model nor reduces anything. With it, accelerate silently drops
    # DeepSpeed, whose ranks meet over gloo only on request.
    handlers: list[KwargsHandler] = []
    if deepspeed:
        ignore_what_deepspeed_calls()
    if on_cpu and deepspeed:
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    AcceleratorState._reset_state()  # an earlier run may have used another precision
    with _hidden("ACCELERATE_USE_FSDP"):  # else accelerate makes its own plugin
        accelerator = Accelerator(
            mixed_precision="bf16" if autocast else "no",
            log_with=recipe.trackers or None,
            project_dir=str(recipe.output_dir),
            cpu=on_cpu and not deepspeed,
            kwargs_handlers=handlers,
        )
    check_world(accelerator)
    return accelerator


def _meet_anew(backend: str) -> None:
    """Join a new process group after the launcher restarted the processes.

    torch's static rendezvous, which `accelerate launch` uses, has one store for all restarts. A
    rank may look up rank 0 there before rank 0 has written, and would find its previous address.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, size = int(os.environ["RANK"]), launched_processes()
    agent = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size)
    store = distributed.PrefixStore(f"attempt-{attempt}", agent)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


def launched_with_fsdp() -> bool:
    """Whether the launcher asks for FSDP; `FullySharded` applies it without accelerate."""
    return _asked_for("FSDP")


def _asked_for(plugin: str) -> bool:
    """Whether `accelerate launch` asks for a plugin, by an environment variable."""
    return os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() == "true"


@contextmanager
def _hidden(variable: str) -> Iterator[None]:
    """Remove an environment variable for a while."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def check_trackers(names: Sequence[str]) -> None:
    """Check that all trackers exist; accelerate silently ignores those that are not installed.

    Raises:
        UsageError: accelerate does not know a tracker, or it is not installed.
    """
    known = [name for name in LoggerType.list() if name != "all"]
    installed = [tracker.value for tracker in get_available_trackers()]
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}."
            raise UsageError(f"trackers: there is no {name!r}; {hint}")
        if name not in installed:
            raise UsageError(f"trackers: {name} is not installed (pip install {name}).")


def check_deepspeed_file() -> None:
    """Check that the DeepSpeed configuration of the launcher exists.

    accelerate would read a missing file's name as the configuration itself, in base64.

    Raises:
        UsageError: it does not exist.
    """
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if path.endswith(".json") and not Path(path).is_file():
        raise UsageError(
            f"There is no DeepSpeed configuration {path}, which the configuration of accelerate "
            "names. Give the path of one, or take that of `generalist recipe zero2`, which needs "
            "none."
        )


def ignore_what_deepspeed_calls() -> None:
    """Ignore torch's warnings that DeepSpeed calls deprecated collectives.

    Each rank would print them several times, within the progress bar.
    """
    deprecated = r"`torch\.distributed\.\w+` is deprecated"
    warnings.filterwarnings("ignore", message=deprecated, category=FutureWarning)


def build_strategy(objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> Strategy:
    """The strategy that the launcher asks for: ZeRO, FSDP2, or whole weights on every process.

    Args:
        objective: the objective with its model, on the accelerator's device.
        recipe: the recipe of the run.
        accelerator: its accelerator.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from generalist.training.strategies.zero import Zero  # DeepSpeed takes seconds to import

        return Zero(objective, recipe, accelerator)
    if launched_with_fsdp():
        from generalist.training.strategies.fully_sharded import FullySharded

        return FullySharded(objective, recipe, accelerator)
    return Replicated(objective, recipe, accelerator)


AMX_HIDDEN_SIZE = 768
"""Smallest hidden size at which autocast to bf16 is faster on a CPU with AMX.

Source: docs/log.md, "Acting and training". The lean pass casts less, and is faster with
bf16 at any size."""


def is_alone_on_cpu(recipe: Recipe) -> bool:
    """Whether a single process trains whole matrices on a CPU; then the lean pass applies."""
    launched = launched_processes() > 1 or _asked_for("DEEPSPEED") or launched_with_fsdp()
    plain = not recipe.compile and recipe.model.lora is None
    return plain and not launched and not torch.cuda.is_available()


def resolve_precision(recipe: Recipe) -> Literal["fp32", "bf16"]:
    """Precision of the forward pass; `auto` is bf16 only where it is faster."""
    if recipe.precision != "auto":
        return recipe.precision
    wide = recipe.model.hidden_size >= AMX_HIDDEN_SIZE
    amx = torch.cpu._is_amx_tile_supported() and (wide or is_alone_on_cpu(recipe))
    return "bf16" if torch.cuda.is_available() or amx else "fp32"


def should_compile(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Whether to compile the blocks: as the recipe says, else where it is faster."""
    if recipe.compile is not None:
        return recipe.compile
    sharded = accelerator.distributed_type == DistributedType.DEEPSPEED or launched_with_fsdp()
    return has_triton(accelerator.device) and not sharded and recipe.model.lora is None


def launched_processes() -> int:
    """The number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_world(accelerator: Accelerator) -> None:
    """Check that launcher, accelerate and torch agree about the number of ranks.

    Raises:
        GeneralistError: they do not.
    """
    launched = launched_processes()
    joined = distributed.get_world_size() if distributed.is_initialized() else 1
    # A real reduction proves more than any count.
    summed = accelerator.reduce(torch.ones((), device=accelerator.device), "sum").item()
    if not launched == joined == accelerator.num_processes == summed:
        raise GeneralistError(
            f"The launcher started {launched} processes, torch.distributed joined {joined}, "
            f"accelerate sees {accelerator.num_processes}, and a sum over all gives {summed:g}: "
            "each would train alone. Check the accelerate config; on CPUs use that of "
            "`generalist recipe ddp`."
        )


class StopSignal:
    """A context that turns SIGTERM and Ctrl-C into a flag; a second signal has its usual effect.

    Attributes:
        raised: whether a signal has come.
    """

    raised: bool

    _previous: dict[int, object]  # handlers by signal

    def __init__(self) -> None:
        self.raised = False
        self._previous = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._raise)
        return self

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

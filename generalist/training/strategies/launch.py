"""What surrounds the loop: the Accelerator, checks of what is really running, and signals."""

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
    """Give the calling thread back the settings of torch that training changes for speed.

    They outlive a run: whoever trains from Python would go on with one thread and without
    subnormal numbers.
    """
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)  # torch's default; what was set before it does not tell


def start_accelerator(recipe: Recipe) -> Accelerator:
    """An Accelerator for the recipe, after checking that it runs on what was asked for.

    Call it within `torch_settings_kept`, with the sizes of a model that training starts from.
    """
    # Gradients and moments that fade into denormals make CPUs many times slower.
    torch.set_flush_denormal(True)
    check_trackers(recipe.trackers)
    check_deepspeed_file()
    on_cpu = not torch.cuda.is_available()
    _meet_anew("gloo" if on_cpu else "nccl")
    # The lean pass does without autocast.
    autocast = resolve_precision(recipe) == "bf16" and not is_alone_on_cpu(recipe)
    deepspeed = _asked_for("DEEPSPEED")
    # cpu=True is what makes several CPU ranks meet over gloo. Without it accelerate gives them a
    # process group and then neither wraps the model nor reduces anything, in silence. With it, it
    # drops DeepSpeed, in silence too, whose ranks meet over gloo only if told so.
    handlers: list[KwargsHandler] = []
    if deepspeed:
        ignore_what_deepspeed_calls()
    if on_cpu and deepspeed:
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    with _hidden("ACCELERATE_USE_FSDP"):  # else it would make a plugin of its own
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
    """After a restart by the launcher, join a process group apart from the one before.

    The static rendezvous of torch, which `accelerate launch` takes, has one store for all restarts.
    A rank that looks up rank 0 there before that has written finds where it listened the last time.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, size = int(os.environ["RANK"]), launched_processes()
    agent = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size)
    store = distributed.PrefixStore(f"attempt-{attempt}", agent)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)


def launched_with_fsdp() -> bool:
    """Whether the launcher asks for FSDP, which we apply ourselves."""
    return _asked_for("FSDP")


def _asked_for(plugin: str) -> bool:
    """Whether `accelerate launch` left word in the environment that a plugin is to be used."""
    return os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() == "true"


@contextmanager
def _hidden(variable: str) -> Iterator[None]:
    """The environment without a variable, for a while."""
    value = os.environ.pop(variable, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[variable] = value


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError for a tracker that accelerate does not know, or that is not installed.

    accelerate leaves the latter out in silence.
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
    """Raise UsageError where the launcher names a DeepSpeed configuration that is not there.

    accelerate would take the name for the configuration itself, in base64.
    """
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if path.endswith(".json") and not Path(path).is_file():
        raise UsageError(
            f"There is no DeepSpeed configuration {path}, which the configuration of accelerate "
            "names. Give the path of one, or take that of `generalist recipe zero2`, which needs "
            "none."
        )


def ignore_what_deepspeed_calls() -> None:
    """Leave out torch's notes that DeepSpeed calls its collectives by names that will go.

    Each rank would say so several times, in the middle of the progress bar.
    """
    deprecated = r"`torch\.distributed\.\w+` is deprecated"
    warnings.filterwarnings("ignore", message=deprecated, category=FutureWarning)


def build_strategy(objective: TokenObjective, recipe: Recipe, accelerator: Accelerator) -> Strategy:
    """The strategy the launcher asks for: ZeRO, FSDP2, or whole on every process."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from generalist.training.strategies.zero import Zero  # DeepSpeed takes seconds to import

        return Zero(objective, recipe, accelerator)
    if launched_with_fsdp():
        from generalist.training.strategies.fully_sharded import FullySharded

        return FullySharded(objective, recipe, accelerator)
    return Replicated(objective, recipe, accelerator)


AMX_HIDDEN_SIZE = 768
"""From this width on autocast to bf16 pays on a CPU with AMX (benchmarks/RESULTS.md, "Acting and
training"); the lean pass, which casts less, pays with any width."""


def is_alone_on_cpu(recipe: Recipe) -> bool:
    """Whether one process trains whole matrices on a CPU, which the lean pass is for."""
    launched = launched_processes() > 1 or _asked_for("DEEPSPEED") or launched_with_fsdp()
    plain = not recipe.compile and recipe.model.lora is None
    return plain and not launched and not torch.cuda.is_available()


def resolve_precision(recipe: Recipe) -> Literal["fp32", "bf16"]:
    """Arithmetic of the forward pass; auto takes bf16 only where it is fast."""
    if recipe.precision != "auto":
        return recipe.precision
    wide = recipe.model.hidden_size >= AMX_HIDDEN_SIZE
    amx = torch.cpu._is_amx_tile_supported() and (wide or is_alone_on_cpu(recipe))
    return "bf16" if torch.cuda.is_available() or amx else "fp32"


def should_compile(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Whether to compile the blocks: as the recipe says, or where it is known to pay."""
    if recipe.compile is not None:
        return recipe.compile
    sharded = accelerator.distributed_type == DistributedType.DEEPSPEED or launched_with_fsdp()
    return has_triton(accelerator.device) and not sharded and recipe.model.lora is None


def launched_processes() -> int:
    """How many processes the launcher says it started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_world(accelerator: Accelerator) -> None:
    """Refuse to train when launcher, accelerate and torch disagree about the number of ranks."""
    launched = launched_processes()
    joined = distributed.get_world_size() if distributed.is_initialized() else 1
    # A sum that was really carried out says more than any count.
    summed = accelerator.reduce(torch.ones((), device=accelerator.device), "sum").item()
    if not launched == joined == accelerator.num_processes == summed:
        raise GeneralistError(
            f"The launcher started {launched} processes, torch.distributed joined {joined}, "
            f"accelerate sees {accelerator.num_processes}, and a sum over all gives {summed:g}: "
            "each would train alone. Check the accelerate config; on CPUs use that of "
            "`generalist recipe ddp`."
        )


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a flag; a second one takes its usual effect at once."""

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

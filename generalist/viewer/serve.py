"""Run the server of `generalist play` until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from generalist.acting.boards import check_can_search
from generalist.acting.hub import check_checkpoint, checkpoint_folder
from generalist.acting.trees import TreePlan
from generalist.collecting.worker import single_threaded
from generalist.errors import UsageError
from generalist.viewer.game import Model
from generalist.viewer.server import make_app
from generalist.viewer.watch import tasks_to_show
from generalist.viewer.watched import load_watched

_GRACE_SECONDS = 1.0  # for open pages, when the server ends


def load_model(checkpoint: str, plan: str | None = None) -> Model:
    """The checkpoint that plays, as `Agent.from_pretrained` takes it.

    Args:
        checkpoint: its folder or name.
        plan: how it searches on boards, as `TreePlan.parse` takes it; None to play at once.

    Raises:
        GeneralistError: it is none, or it knows no environment.
        UsageError: there is no such plan, or the checkpoint cannot search.
    """
    search = None if plan is None else TreePlan.parse(plan)
    check_checkpoint(checkpoint_folder(checkpoint))
    agent, beliefs = load_watched(checkpoint, tasks_to_show(checkpoint)[0])
    if search is not None:
        check_can_search(agent)
    return Model(checkpoint, agent, beliefs, plan=search)


def serve(
    checkpoint: str,
    *,
    plan: str | None = None,
    host: str,
    port: int,
    save: Path,
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C.

    Args:
        checkpoint: who plays.
        plan: how it searches as a person's opponent on a board.
        host: address to listen on.
        port: of the server; 0 takes a free one.
        save: folder of the episodes that are kept.
        ready: is called with the address of the page.

    Raises:
        UsageError: the address cannot be listened on, or the checkpoint cannot search.
    """
    single_threaded()
    asyncio.run(_serve(load_model(checkpoint, plan), host, port, save, ready))


async def _serve(
    model: Model, host: str, port: int, save: Path, ready: Callable[[str], None]
) -> None:
    runner = web.AppRunner(
        make_app(model, save=save, host=host), shutdown_timeout=_GRACE_SECONDS, access_log=None
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(
                f"Nothing can listen on {host}, port {port}: {error.strerror or error}. Give "
                "another --port."
            ) from error
        address = runner.addresses[0]
        ready(f"http://{address[0]}:{address[1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()

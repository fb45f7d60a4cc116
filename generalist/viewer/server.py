"""The server of `generalist play`: one page, and one game for each page that is open.

The page and the server talk over a WebSocket. Texts are JSON: what the page says is in
`generalist.viewer.messages`, what the server says has a `type`. A binary message is a picture: one
byte with the number of the session, then a JPEG.

A game has a thread of its own. It waits for its page: the next step is taken when the page has been
sent the last one, so a page that reads slowly slows its own game alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from generalist import envs
from generalist.errors import GeneralistError, in_words
from generalist.version import __version__
from generalist.viewer.game import PLAY_SEEDS, Game, Model
from generalist.viewer.messages import (
    MOST_BYTES,
    Act,
    Ask,
    Control,
    Instruct,
    Look,
    Message,
    Plain,
    Speed,
    Start,
    Temperature,
    read_message,
)
from generalist.viewer.page import page_of

MOST_GAMES = 64
FRAMES_A_SECOND = 30  # a faster game sends some of its steps
_PATIENCE_SECONDS = 20.0  # with a page that does not read
_END_SECONDS = 1.0  # an agent's last frame stays for so long
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_MODEL: web.AppKey[Model] = web.AppKey("model", Model)
_SAVE: web.AppKey[Path] = web.AppKey("save", Path)
_HOSTS: web.AppKey[frozenset[str]] = web.AppKey("hosts", frozenset)
_OPEN: web.AppKey[set[web.WebSocketResponse]] = web.AppKey("open", set[web.WebSocketResponse])
_ALONE: web.AppKey[list[str]] = web.AppKey("alone", list)
T = TypeVar("T")


def make_app(model: Model, *, save: Path, host: str = "127.0.0.1") -> web.Application:
    """The application.

    Args:
        model: who plays.
        save: folder of the episodes that are kept.
        host: what the server listens on; requests for other names are refused, and so are pages of
            other sites.
    """
    app = web.Application(middlewares=[_only_from_here])
    app[_MODEL], app[_SAVE] = model, save
    app[_HOSTS] = frozenset(_LOCAL | {host})
    pages: set[web.WebSocketResponse] = set()
    app[_OPEN] = pages
    app[_ALONE] = _played_alone()
    app.router.add_get("/", _page)
    app.router.add_get("/play", _play)
    app.on_shutdown.append(_close_all)
    return app


def _played_alone() -> list[str]:
    """The boards and the scenarios of Doom, which a person can play without a checkpoint."""
    found: list[str] = []
    with contextlib.suppress(GeneralistError):
        found += [each.name for each in envs.list_tasks("board")]
    if importlib.util.find_spec("vizdoom") is not None:
        found += [each.name for each in envs.list_tasks("doom")]
    return found


@web.middleware
async def _only_from_here(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse other names of this server, and scripts of other sites."""
    hosts = request.app[_HOSTS]
    name = urlsplit(f"//{request.host}").hostname or ""
    origin = request.headers.get("Origin")
    if "0.0.0.0" not in hosts and name not in hosts:
        raise web.HTTPForbidden(text=f"This server is not called {name}.")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise web.HTTPForbidden(text="Pages of other sites may not play here.")
    return await handler(request)


async def _page(request: web.Request) -> web.Response:
    html = page_of("play.html", styles=("base.css", "play.css"), scripts=("inside.js", "play.js"))
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src blob: data:"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store"}
    return web.Response(text=html, content_type="text/html", headers=headers)


async def _play(request: web.Request) -> web.WebSocketResponse:
    """Play with one page until it closes."""
    # JPEGs do not shrink any further.
    socket = web.WebSocketResponse(max_msg_size=MOST_BYTES, heartbeat=15.0, compress=False)
    await socket.prepare(request)
    running = request.app[_OPEN]
    if len(running) >= MOST_GAMES:
        await socket.send_json(_error(f"{MOST_GAMES} pages are open; close one."))
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
        return socket
    running.add(socket)
    try:
        async with contextlib.aclosing(_Table(request.app, socket)) as table:
            await table.serve()
    except (TimeoutError, ConnectionError):
        pass  # the page does not read, or is gone
    finally:
        running.discard(socket)
        if not socket.closed:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(), 1.0)
    return socket


async def _close_all(app: web.Application) -> None:
    pages = app[_OPEN]
    for socket in tuple(pages):
        with contextlib.suppress(Exception):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends")


class _Table:
    """One page and its game."""

    def __init__(self, app: web.Application, socket: web.WebSocketResponse) -> None:
        self._model, self._save, self._alone = app[_MODEL], app[_SAVE], app[_ALONE]
        self._socket = socket
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="game")
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._game: Game | None = None
        self._running = False
        self._speed = 1.0
        self._temperature: float | None = None

    async def aclose(self) -> None:
        """Close the game in its own thread, without waiting for a step that takes long."""
        game, self._game = self._game, None
        if game is not None:
            self._thread.submit(game.close)
        self._thread.shutdown(wait=False)

    async def serve(self) -> None:
        """Take messages and play until the page is gone."""
        await self._say(self._hello())
        reader = asyncio.create_task(self._read())
        try:
            while await self._turn():
                pass
        finally:
            reader.cancel()

    async def _read(self) -> None:
        """Put what the page says into the inbox; None at its end."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    await self._say(_error("A message is a text; this is binary."))
                    continue
                try:
                    self._inbox.put_nowait(read_message(message.data))
                except GeneralistError as error:
                    await self._say(_error(str(error)))
        self._inbox.put_nowait(None)

    async def _turn(self) -> bool:
        """One step of the game, or one message; False once the page is gone."""
        game = self._game
        if game is None or not self._running or game.waiting:
            return await self._heed(await self._inbox.get())
        began = asyncio.get_running_loop().time()
        pace = 1.0 / (game.steps_a_second * self._speed)
        steps = max(1, round(1.0 / (pace * FRAMES_A_SECOND)))
        if not await self._try(lambda: _steps(game, steps)):
            self._running = False  # the next step would fail as this one did
        await self._show()
        rest = _END_SECONDS if game.ended else 0.0
        return await self._heed_until(began + steps * pace + rest)

    async def _heed_until(self, due: float) -> bool:
        """Do what the page says until the next step is due; False once it is gone."""
        while self._running:
            left = due - asyncio.get_running_loop().time()
            if not self._inbox.empty():
                message = self._inbox.get_nowait()
            elif left <= 0:
                return True
            else:
                try:
                    message = await asyncio.wait_for(self._inbox.get(), left)
                except TimeoutError:
                    return True
            if not await self._heed(message):
                return False
        return True

    async def _heed(self, message: Message | None) -> bool:
        """Do what the page says; False once it is gone."""
        if message is None:
            return False
        if isinstance(message, Start):
            await self._start(message)
        elif isinstance(message, Speed):
            self._speed = message.value
        elif self._game is None:
            await self._say(_error("Choose a task before anything else."))
        elif isinstance(message, Plain):
            await self._button(message.type, self._game)
        else:
            await self._change(message, self._game)
        return True

    async def _start(self, message: Start) -> None:
        old, self._game, self._running = self._game, None, False
        if old is not None:
            await self._call(old.close)
        seed = message.seed
        if seed is None:
            seed = PLAY_SEEDS + secrets.randbelow(90_000)
        made: list[Game] = []

        def make() -> None:
            made.append(Game(self._model, message.task, agents=message.agents, seed=seed))

        if not await self._try(make):
            return
        self._game, self._running = made[0], True
        if self._temperature is not None:
            self._game.set_temperature(self._temperature)
        await self._say(self._game.started())
        await self._show()

    async def _button(self, which: str, game: Game) -> None:
        if which in ("play", "pause"):
            self._running = which == "play"
        elif which == "step":
            self._running = False
            await self._try(game.step)
        elif which == "again":
            await self._try(game.again)
        else:
            await self._keep(game)
        await self._show()

    async def _keep(self, game: Game) -> None:
        found: list[Path] = []
        if await self._try(lambda: found.append(game.save(self._save))):
            await self._say({"type": "saved", "folder": str(found[0])})

    async def _change(self, message: Message, game: Game) -> None:
        if isinstance(message, Temperature):
            self._temperature = message.value
            await self._try(lambda: game.set_temperature(message.value))
        elif isinstance(message, Instruct):
            await self._try(lambda: game.instruct(message.text))
        elif isinstance(message, Ask):
            await self._try(lambda: game.ask(message.text))
        elif isinstance(message, Control):
            await self._try(lambda: game.take_over(message.on))
        elif isinstance(message, Look):
            await self._try(lambda: game.look_into(message.slot))
        elif isinstance(message, Act):
            acted = await self._try(lambda: game.act(message.action))
            if not acted or not (self._running and game.controls.turns):
                return
            await self._try(game.step)
        await self._show()

    async def _try(self, work: Callable[[], Any]) -> bool:
        """Do some work in the game's thread; tell the page what goes wrong."""
        try:
            await self._call(work)
        except GeneralistError as error:
            await self._say(_error(str(error)))
        except Exception as error:  # of an environment: it ends this game alone
            self._running = False
            await self._say(_error(f"The game stopped: {in_words(error)}."))
        else:
            return True
        return False

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _show(self) -> None:
        """Send the present state and its pictures."""
        game = self._game
        if game is None:
            return
        shown: dict[str, Any] = {}

        def look() -> None:
            shown.update(state=game.state(), pictures=game.pictures())

        if not await self._try(look):
            return
        running = self._running and not game.sessions[0].done if game.control else self._running
        for slot, picture in enumerate(shown["pictures"]):
            await self._within(self._socket.send_bytes(bytes([slot]) + picture))
        await self._say({**shown["state"], "running": running})

    async def _say(self, value: dict[str, Any]) -> None:
        await self._within(self._socket.send_json(value))

    async def _within(self, sending: Any) -> None:
        await asyncio.wait_for(sending, _PATIENCE_SECONDS)

    def _hello(self) -> dict[str, Any]:
        tasks = self._model.tasks
        return {
            "type": "hello",
            "version": __version__,
            "checkpoint": self._model.name,
            "tasks": tasks,
            "alone": [each for each in self._alone if each not in tasks],
            "save": str(self._save),
        }


def _steps(game: Game, count: int) -> None:
    for _ in range(count):
        if not game.waiting:
            game.step()
        if game.ended:
            return


def _error(text: str) -> dict[str, str]:
    return {"type": "error", "text": text}

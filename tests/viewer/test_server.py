"""The server of `generalist play`: what it answers, and what does not bring it down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from generalist.shards.reader import TaskData
from generalist.viewer import server
from generalist.viewer.game import Model
from generalist.viewer.server import make_app

CARTPOLE = "gym/CartPole-v1"


def serving(model: Model, save: Path, work: Callable[[TestClient], Awaitable[None]]) -> None:
    """Do some work with a client of a server."""

    async def run() -> None:
        async with TestClient(TestServer(make_app(model, save=save))) as client:
            await asyncio.wait_for(work(client), 120)

    asyncio.run(run())


async def heard(socket: ClientWebSocketResponse, wanted: str) -> dict:
    """The next message of a type."""
    while True:
        message = await socket.receive(30)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        if message.type is WSMsgType.TEXT and (found := json.loads(message.data))["type"] == wanted:
            return found


async def started(client: TestClient, task: str = CARTPOLE, **more) -> ClientWebSocketResponse:
    socket = await client.ws_connect("/play")
    assert CARTPOLE in (await heard(socket, "hello"))["tasks"]
    await socket.send_json({"type": "start", "task": task, "seed": 800_000, **more})
    await heard(socket, "started")
    return socket


def test_the_page_and_its_policy(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        answer = await client.get("/")
        text = await answer.text()
        assert answer.status == 200 and "default-src 'none'" in answer.headers[
            "Content-Security-Policy"]  # fmt: skip
        assert "new WebSocket" in text and "%SCRIPT%" not in text
        assert (await client.get("/etc/passwd")).status == 404

    serving(model, tmp_path, work)


def test_a_game_is_watched_paused_stepped_and_saved(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        socket = await started(client)
        await socket.send_json({"type": "speed", "value": 8})
        while (await heard(socket, "state"))["slots"][0]["step"] < 20:
            pass
        await socket.send_json({"type": "pause"})
        while (state := await heard(socket, "state"))["running"]:
            pass
        await socket.send_json({"type": "step"})
        after = await heard(socket, "state")
        assert after["slots"][0]["step"] == state["slots"][0]["step"] + 1
        assert not after["running"] and after["moment"]["bars"]
        await socket.send_json({"type": "save"})
        assert (await heard(socket, "saved"))["folder"] == str(tmp_path / CARTPOLE)
        await socket.send_json({"type": "control", "on": True})
        while not (await heard(socket, "state"))["control"]:
            pass
        await socket.send_json({"type": "again"})
        while (await heard(socket, "state"))["slots"][0]["step"]:
            pass

    serving(model, tmp_path, work)
    assert (tmp_path / CARTPOLE / "manifest.json").exists()


def test_in_turns_each_action_is_one_step(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        socket = await started(client, "babyai/GoToLocal")
        await socket.send_json({"type": "control", "on": True})
        while not (state := await heard(socket, "state"))["control"]:
            pass
        before = state["slots"][0]["step"]
        for number in range(1, 4):
            await socket.send_json({"type": "act", "action": 0})
            assert (await heard(socket, "state"))["slots"][0]["step"] == before + number
        await socket.send_json({"type": "instruct", "text": "go to a red ball"})
        assert (await heard(socket, "state"))["instruction"] == "go to a red ball"

    serving(model, tmp_path, work)


def test_bad_messages_are_answered_and_end_nothing(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        socket = await client.ws_connect("/play")
        for bad in ("{", "[]", '{"type": "step"}', '{"type": "start", "task": "gym/Nothing-v0"}',
                    '{"type": "start", "task": "../../etc"}'):  # fmt: skip
            await socket.send_str(bad)
            assert (await heard(socket, "error"))["text"]
        await socket.send_bytes(b"\x00\xff")
        assert "binary" in (await heard(socket, "error"))["text"]
        await socket.send_json({"type": "start", "task": CARTPOLE})
        await heard(socket, "state")
        other = await client.ws_connect("/play")
        await other.send_str("x" * 100_000)  # closes this page alone
        async with asyncio.timeout(20):
            async for _ in other:
                pass
        await heard(socket, "state")

    serving(model, tmp_path, work)


def test_a_game_that_fails_stops_and_says_so_once(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = CartPoleEnv.step, []

    def breaks(self, action):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("it broke")
        return real(self, action)

    monkeypatch.setattr(CartPoleEnv, "step", breaks)

    async def work(client: TestClient) -> None:
        socket = await started(client)
        assert "it broke" in (await heard(socket, "error"))["text"]
        state = await heard(socket, "state")
        assert not state["running"] and state["slots"][0]["step"] == 3
        await socket.send_json({"type": "save"})
        await heard(socket, "saved")
        assert len(calls) == 4

    serving(model, tmp_path, work)
    assert TaskData(tmp_path / CARTPOLE).record(0)["steps"] == 3


def test_pages_of_other_sites_and_other_names_are_refused(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect("/play", headers={"Origin": "http://evil.example"})
        assert refused.value.status == 403
        answer = await client.get("/", headers={"Host": "rebound.example"})
        assert answer.status == 403

    serving(model, tmp_path, work)


def test_fifty_pages_and_closed_ones(model: Model, tmp_path: Path):
    async def work(client: TestClient) -> None:
        sockets = [await client.ws_connect("/play") for _ in range(50)]
        await asyncio.gather(*(heard(each, "hello") for each in sockets))
        for each in sockets[:8]:
            await each.send_json({"type": "start", "task": CARTPOLE})
        await asyncio.gather(*(heard(each, "state") for each in sockets[:8]))
        for each in sockets[1:]:
            await each.close()
        await heard(sockets[0], "state")
        for _ in range(100):
            if len(client.app[server._OPEN]) == 1:
                break
            await asyncio.sleep(0.05)
        assert len(client.app[server._OPEN]) == 1

    serving(model, tmp_path, work)


def test_too_many_pages_are_told_so(model: Model, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(server, "MOST_GAMES", 1)

    async def work(client: TestClient) -> None:
        first = await started(client)
        second = await client.ws_connect("/play")
        assert "close one" in (await heard(second, "error"))["text"]
        assert (await second.receive()).type is WSMsgType.CLOSE
        await heard(first, "state")

    serving(model, tmp_path, work)


@pytest.mark.slow  # until the buffers on the way are full
def test_a_page_that_never_reads_ends_alone(model: Model, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0.5)

    async def work(client: TestClient) -> None:
        reader, writer = await asyncio.open_connection(
            client.server.host, client.server.port, limit=1024
        )
        host = f"{client.server.host}:{client.server.port}"
        writer.write(
            f"GET /play HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .encode()
        )  # fmt: skip
        await writer.drain()
        assert b"101" in await reader.readline()
        for text in ('{"type":"start","task":"gym/Pendulum-v1","agents":9}',
                     '{"type":"speed","value":16}'):  # fmt: skip
            masked = bytes(each ^ 7 for each in text.encode())
            writer.write(bytes([0x81, 0x80 | len(masked), 7, 7, 7, 7]) + masked)
        await writer.drain()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        other = await started(client)
        until = time.monotonic() + 90
        while len(client.app[server._OPEN]) > 1 and time.monotonic() < until:
            await heard(other, "state")
        assert len(client.app[server._OPEN]) == 1
        with contextlib.suppress(Exception):
            writer.close()

    serving(model, tmp_path, work)

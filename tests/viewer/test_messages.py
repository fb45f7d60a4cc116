"""What the page may say; everything else is refused in a sentence."""

from __future__ import annotations

import pytest

from generalist.errors import UsageError
from generalist.viewer.messages import Act, Start, read_message


def test_messages_are_read():
    assert read_message('{"type": "start", "task": "gym/CartPole-v1"}') == Start(
        type="start", task="gym/CartPole-v1"
    )
    assert read_message('{"type": "act", "action": [0.5, 1]}').action == [0.5, 1]
    assert read_message('{"type": "act", "action": 3}') == Act(type="act", action=3)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"start"', '{"type": "format disk"}', "{}",
        '{"type": "start"}', '{"type": "start", "task": 3}',
        '{"type": "start", "task": "a", "agents": 100}', '{"type": "step", "more": 1}',
        '{"type": "speed", "value": 1e9}', '{"type": "speed", "value": NaN}',
        '{"type": "act", "action": "left"}', '{"type": "act", "action": true}',
        '{"type": "act", "action": [1e999]}', '{"type": "control", "on": 1}',
        '{"type": "instruct", "text": "' + "x" * 500 + '"}', "[" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(text: str):
    with pytest.raises(UsageError):
        read_message(text)

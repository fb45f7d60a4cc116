"""Maps of Doom from nothing: a WAD with one room in the text format of maps (UDMF).

A WAD is a header (`PWAD`, number of lumps, offset of the directory), the lumps, and the directory
(offset, size and name of each). A map in the text format is an empty lump of its name, TEXTMAP and
ENDMAP; the engine builds its nodes itself. TEXTMAP has a fixed length, so that a running engine
reads another map at the same place of the file. The lump DECORATE has actors of the project's own.

Lengths are in units of the map.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

MAP = "MAP01"
_HEADER, _ENTRY = "<4sii", "<ii8s"
_TEXT_BYTES = 16_384
_PLAYER_START = 1
_CEILING = 128
_ALWAYS = "".join(f" skill{level} = true;" for level in range(1, 6)) + " single = true;"


def room_text(
    size: tuple[int, int],
    things: Iterable[tuple[int, float, float]],
    *,
    player: tuple[float, float, int],
    wall: str,
    floor: str,
) -> str:
    """A room with its south-west corner at (0, 0).

    Args:
        size: width and depth.
        things: the engine's number of each, and where it stands.
        player: where the player starts, and degrees counterclockwise from the east.
        wall, floor: names of textures.
    """
    width, depth = size
    lines = ['namespace = "zdoom";']
    # Clockwise: the front side of a line is to its right, where the room is.
    for corner in ((0, 0), (0, depth), (width, depth), (width, 0)):
        lines.append(f"vertex {{ x = {corner[0]}; y = {corner[1]}; }}")
    for side in range(4):
        ends = f"v1 = {side}; v2 = {(side + 1) % 4};"
        lines.append(f"linedef {{ {ends} sidefront = {side}; blocking = true; }}")
        lines.append(f'sidedef {{ sector = 0; texturemiddle = "{wall}"; }}')
    lines.append(
        f'sector {{ heightfloor = 0; heightceiling = {_CEILING}; texturefloor = "{floor}"; '
        'textureceiling = "CEIL1_1"; lightlevel = 220; }'
    )
    x, y, angle = player
    start = (_PLAYER_START, x, y)
    for number, (kind, east, north) in enumerate((start, *things)):
        turned = angle if number == 0 else 0
        at = f"x = {east:.3f}; y = {north:.3f}; angle = {turned}; type = {kind};"
        lines.append(f"thing {{ {at}{_ALWAYS} }}")
    return "\n".join(lines)


def actor_text(name: str, number: int, sprite: str, colour: tuple[float, float, float]) -> str:
    """An actor that stands still, can be shot, and falls at the first hit.

    Args:
        name: its class in the engine.
        number: by which maps place it.
        sprite: of the engine's graphics; frames A and B stand, I to L fall.
        colour: red, green and blue of what is brightest of it.
    """
    brightest = ",".join(f"{part:.2f}" for part in colour)
    return (
        f"actor {name} {number} {{ Health 1 Radius 20 Height 56 +SOLID +SHOOTABLE "
        f'Translation "0:255=%[0.00,0.00,0.00]:[{brightest}]" States {{\n'
        f"Spawn:\n{sprite} AB 10\nLoop\n"
        f"Death:\n{sprite} IJK 6\n{sprite} L -1\nStop\n}} }}\n"
    )


def write_wad(path: Path, text: str, actors: str = "") -> None:
    """Write a WAD whose only map is this text, or replace the text in a WAD that is there.

    Args:
        path: of the WAD.
        text: of the map.
        actors: text of the lump DECORATE, which an engine reads once, when it starts.

    Raises ValueError where the text is too long.
    """
    content = text.encode().ljust(_TEXT_BYTES)
    if len(content) > _TEXT_BYTES:
        raise ValueError(f"a map's text is at most {_TEXT_BYTES:,} bytes; got {len(content):,}")
    begin = struct.calcsize(_HEADER)
    if path.exists():
        with open(path, "r+b") as file:
            file.seek(begin)
            file.write(content)
        return
    end = begin + _TEXT_BYTES
    defined = actors.encode()
    lumps = (
        (begin, 0, MAP),
        (begin, _TEXT_BYTES, "TEXTMAP"),
        (end, 0, "ENDMAP"),
        (end, len(defined), "DECORATE"),
    )
    directory = b"".join(struct.pack(_ENTRY, at, size, name.encode()) for at, size, name in lumps)
    header = struct.pack(_HEADER, b"PWAD", len(lumps), end + len(defined))
    path.write_bytes(header + content + defined + directory)

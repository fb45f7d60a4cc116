"""The drawings of the concept pages: `python docs/drawings.py` writes them to docs/img/.

What they show of ids and tokens is taken from the package, and a test compares the files with it.
"""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path

import numpy as np
from gymnasium import spaces

from generalist.specs import find_spec
from generalist.tokenization.layout import Layout
from generalist.tokenization.processor import GeneralistProcessor
from generalist.tokenization.text import TextCodec
from generalist.vocabulary import Vocabulary

FOLDER = Path(__file__).parent / "img"
INK, GREY, LINE = "#1f2328", "#57606a", "#d0d7de"
BLUE = ("#ddf4ff", "#54aeff")  # observations
YELLOW = ("#fff8c5", "#d4a72c")  # headers and separators
GREEN = ("#dafbe1", "#4ac26b")  # targets
PURPLE = ("#fbefff", "#c297ff")  # what is made of others
WHITE = ("#f6f8fa", LINE)  # padding and files
Colours = tuple[str, str]


class Drawing:
    """An SVG that is put together from boxes, arrows and words; lengths are in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" font-family="Helvetica, Arial, '
            f'sans-serif">\n<title>{escape(title)}</title>\n<defs><marker id="head" '
            'viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 10 5 0 10z" fill="{GREY}"/></marker></defs>\n'
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>'
        )
        self._parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, *words: str, colours: Colours, height: float = 30
    ) -> None:
        """A box with lines of words in its middle."""
        fill, stroke = colours
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )
        for number, line in enumerate(words):
            down = y + height / 2 + 4 + 15 * (number - (len(words) - 1) / 2)
            self.words(x + width / 2, down, line, anchor="middle", size=12)

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        size: float = 13,
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """A line of words that begins (or has its middle) at (x, y)."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{colour}"{weight}>{escape(text)}</text>'
        )

    def line(self, *points: tuple[float, float], arrow: bool = True, dashed: bool = False) -> None:
        """A line through points, with a head at its end."""
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = ' marker-end="url(#head)"' if arrow else ""
        dashes = ' stroke-dasharray="3 3"' if dashed else ""
        self._parts.append(
            f'<polyline points="{way}" fill="none" stroke="{GREY}" stroke-width="1.4"{head}'
            f"{dashes}/>"
        )

    def row(
        self, x: float, y: float, cells: list[tuple[str, float, Colours]], height: float = 30
    ) -> float:
        """Boxes side by side; returns where the last one ends."""
        for text, width, colours in cells:
            self.box(x, y, width, text, colours=colours, height=height)
            x += width
        return x

    def svg(self) -> str:
        """The text of the file."""
        return "\n".join([self._head, *self._parts, "</svg>", ""])


def _processor() -> GeneralistProcessor:
    """The shipped one without its frames, which takes no torch."""
    text = TextCodec.from_pretrained(find_spec("tokenizers", "text"))
    return GeneralistProcessor(Vocabulary.default(text.size), text)


def _cartpole() -> Layout:
    return _processor().layout(spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2))


def sequence() -> Drawing:
    """A window of CartPole, token by token."""
    drawing = Drawing(1000, 210, "A header and two timesteps of CartPole as tokens")
    processor, layout = _processor(), _cartpole()
    header = processor.header("gym/CartPole-v1").tolist()
    text = [processor.decode_text(np.array([each])) for each in header[1:]]
    drawing.words(20, 30, "header", bold=True)
    end = drawing.row(20, 40, [("begin", 52, YELLOW), *((each, 42, YELLOW) for each in text)])
    drawing.words(end + 14, 60, f"ids {', '.join(map(str, header))}", colour=GREY, size=12)
    x: float = 20
    for step in range(2):
        drawing.words(x, 102, f"timestep {step}", bold=True)
        seen = [(name, 84, BLUE) for name in ("position", "velocity", "angle", "turning")]
        x = drawing.row(x, 112, [*seen, ("separator", 76, YELLOW), ("push", 66, GREEN)]) + 4
    for end in (486, 968):
        drawing.line((end - 104, 170), (end - 40, 170), (end - 40, 146))
    drawing.words(20, 176, "The green token is predicted from all before it.", colour=GREY)
    assert layout.tokens_per_timestep == 6
    return drawing


def vocabulary() -> Drawing:
    """The ranges of the default vocabulary with their ids."""
    ranges = list(_processor().vocabulary)
    drawing = Drawing(1000, 170, "The ranges of the vocabulary, end to end")
    widths = [280, 90, 170, 170, 170, 85]
    colours = [WHITE, YELLOW, BLUE, GREEN, BLUE, PURPLE]
    x: float = 20
    for each, width, colour in zip(ranges, widths, colours, strict=True):
        drawing.box(x, 50, width - 10, each.name, f"{each.size:,}", colours=colour, height=46)
        drawing.words(x, 114, f"{each.start:,}", size=11, colour=GREY)
        x += width
    drawing.words(x - 10, 40, f"{ranges[-1].stop:,}", size=11, colour=GREY, anchor="end")
    drawing.words(20, 32, "ids, from 0 on; widths are not to scale")
    drawing.words(20, 146, "A new range is appended here, so no old id changes.", colour=GREY)
    drawing.line((380, 142), (978, 142), (978, 98), dashed=True)
    return drawing


def layouts() -> Drawing:
    """Spaces, what is stored of a timestep, and what a view shows of it."""
    drawing = Drawing(1000, 270, "From spaces to the stored timestep, and to what a model is shown")
    drawing.words(20, 30, "spaces", bold=True)
    drawing.box(20, 40, 240, "Dict(image: Box(7, 7, 3),", "direction: Discrete(4))",
                colours=BLUE, height=44)  # fmt: skip
    drawing.box(270, 40, 120, "Discrete(7)", colours=GREEN, height=44)
    drawing.words(20, 116, "stored", bold=True)
    stored = [("direction", 84, BLUE), ("image, 49 cells", 190, BLUE), ("separator", 76, YELLOW)]
    end = drawing.row(20, 126, [*stored, ("action", 66, GREEN)])
    drawing.words(end + 14, 146, "52 tokens a timestep, with rewards and labels beside them",
                  colour=GREY, size=12)  # fmt: skip
    drawing.line((140, 84), (140, 124))
    drawing.line((330, 84), (402, 124))
    drawing.words(20, 192, "shown", bold=True)
    drawing.row(20, 202, [("reward before", 100, PURPLE), *stored, ("return", 60, PURPLE),
                          ("action", 66, GREEN)])  # fmt: skip
    drawing.line((220, 156), (290, 200))
    drawing.words(620, 222, "a view may weave in parts made of rewards", colour=GREY, size=12)
    drawing.words(20, 256, "What is stored never changes for a new way of learning.", colour=GREY)
    return drawing


def frames() -> Drawing:
    """A frame and its background, patch by patch, and the codes of where they differ."""
    drawing = Drawing(1000, 268, "A frame becomes codes of what differs from its background")
    config = json.loads((find_spec("tokenizers", "frames") / "config.json").read_text())
    patches, size = config["frame_size"] // config["patch_size"], 30
    moving = {(1, 4), (3, 2), (3, 3), (5, 0)}
    titles = ("a frame, resized", "the background of its task", "codes")
    for column, title in enumerate(titles):
        left = 20 + 300 * column
        drawing.words(left, 30, title, bold=True)
        for y in range(patches):
            for x in range(patches):
                moves = (y, x) in moving and column != 1
                colours = GREEN if moves else WHITE if column == 2 else BLUE
                word = ("code" if moves else "still") if column == 2 else ""
                drawing.box(left + size * x, 42 + size * y, size, word, colours=colours)
    drawing.words(235, 137, "against", colour=GREY)
    drawing.line((510, 132), (606, 132))
    drawing.words(820, 132, f"{patches**2} codes", colour=GREY)
    drawing.words(820, 150, f"of {math.prod(config['levels']):,}", colour=GREY)
    drawing.words(20, 252, "A patch that equals its background has the still code, and comes back "
                  "exactly.", colour=GREY)  # fmt: skip
    return drawing


def forms() -> Drawing:
    """A timestep of the reacher in the flat form and in the compact one."""
    drawing = Drawing(1000, 300, "The same timestep in the flat and in the compact form")
    drawing.words(20, 30, "flat: a position for each token", bold=True)
    cells = [(f"o{number}", 62, BLUE) for number in range(1, 7)]
    drawing.row(20, 42, [*cells, ("separator", 76, YELLOW), ("a1", 62, GREEN), ("a2", 62, GREEN)])
    drawing.words(610, 62, "9 positions; a2 is chosen after a1", colour=GREY, size=12)
    drawing.words(20, 118, "compact: G positions for what is given, one pass for the action",
                  bold=True)  # fmt: skip
    drawing.row(20, 130, cells)
    drawing.box(20, 182, 372, "embedder of this kind of observation", colours=PURPLE)
    for number in range(6):
        drawing.line((51 + 62 * number, 160), (51 + 62 * number, 180))
    drawing.box(170, 240, 72, "position", colours=YELLOW)
    drawing.box(242, 240, 72, "query", colours=PURPLE)
    drawing.line((206, 212), (206, 238))
    drawing.box(430, 240, 62, "a1", colours=GREEN)
    drawing.box(500, 240, 62, "a2", colours=GREEN)
    drawing.line((206, 270), (206, 288), (461, 288), (461, 272))
    drawing.line((278, 270), (278, 280), (531, 280), (531, 272))
    drawing.words(610, 260, "2 positions (G = 1): a1 and a2 at once", colour=GREY, size=12)
    return drawing


def windows() -> Drawing:
    """Rows of one length, packed with segments of several episodes."""
    drawing = Drawing(1000, 230, "Two rows of a batch, packed with segments")
    drawing.words(20, 28, "row 0", bold=True)
    drawing.row(20, 36, [("head", 50, YELLOW), ("CartPole, 4 timesteps", 240, BLUE),
                         ("head", 50, YELLOW), ("GoToLocal, 4 timesteps", 380, BLUE),
                         ("head", 50, YELLOW), ("Pendulum", 150, BLUE),
                         ("pad", 40, WHITE)])  # fmt: skip
    positions = [(20, "0, 1, 2 ..."), (310, "0, 1, 2 ..."), (740, "0, 1, 2 ...")]
    for x, text in positions:
        drawing.words(x, 84, f"positions {text}", size=11, colour=GREY)
    drawing.words(20, 122, "row 1", bold=True)
    drawing.row(20, 130, [("head", 50, YELLOW), ("demonstration: another episode", 230, WHITE),
                          ("end", 40, YELLOW), ("Freeway, 4 timesteps", 300, BLUE),
                          ("begin", 50, YELLOW), ("document", 250, GREEN),
                          ("end", 40, GREEN)])  # fmt: skip
    drawing.words(70, 178, "in the input, no loss", size=11, colour=GREY)
    drawing.words(690, 178, "every token is a target", size=11, colour=GREY)
    drawing.words(
        20, 212, "Packed segments do not see each other. A row is a function of (seed, number).",
        colour=GREY,
    )  # fmt: skip
    return drawing


def checkpoints() -> Drawing:
    """The folder of a run: checkpoints to resume from, and the one to act with."""
    drawing = Drawing(1000, 290, "What a run writes, and what continues from it")
    drawing.words(20, 30, "runs/NAME/checkpoints/: to resume from", bold=True)
    for number, step in enumerate((2000, 4000)):
        x = 20 + 300 * number
        drawing.box(x, 42, 280, f"step-{step:08d}/", colours=WHITE, height=26)
        drawing.box(x, 68, 280, "model, optimizer, random (safetensors)", "state, data, recipe",
                    "manifest: sizes and SHA-256", colours=WHITE, height=58)  # fmt: skip
    drawing.line((302, 84), (318, 84))
    drawing.words(640, 66, "The newest that verifies is continued,", colour=GREY, size=12)
    drawing.words(640, 84, "on any number of processes,", colour=GREY, size=12)
    drawing.words(640, 102, "under DDP, FSDP2 or ZeRO.", colour=GREY, size=12)
    drawing.words(20, 166, "runs/NAME/checkpoint/: to act with", bold=True)
    drawing.box(20, 178, 280, "config.json, model.safetensors", colours=GREEN, height=44)
    drawing.box(320, 178, 280, "generalist/: processor, layouts,", "recipe, embedders",
                colours=PURPLE, height=44)  # fmt: skip
    drawing.line((460, 128), (460, 176))
    drawing.line((460, 152), (292, 152), (292, 176))
    drawing.words(20, 246, "AutoModelForCausalLM loads this alone", colour=GREY, size=12)
    drawing.words(320, 246, "Agent needs both", colour=GREY, size=12)
    drawing.words(20, 274, "A checkpoint has its name once all of it is on the disk.", colour=GREY)
    return drawing


def caches() -> Drawing:
    """How full the two rows of a slot are, over the timesteps of an episode."""
    drawing = Drawing(1000, 300, "Two staggered rows: one acts while the other fills")
    left, top, bottom, width = 60, 50, 230, 900
    drawing.line((left, bottom), (left + width, bottom))
    drawing.line((left, bottom), (left, top - 20))
    drawing.line((left, top), (left + width, top), arrow=False, dashed=True)
    drawing.words(left + 6, top - 6, "window: limit of a row", size=12, colour=GREY)
    drawing.words(left + width - 120, bottom + 18, "timesteps", size=12, colour=GREY)
    drawing.words(16, 140, "tokens", size=12, colour=GREY)
    header, half = bottom - 20, (top + bottom) / 2
    rise = width / 3.5
    drawing.line((left, header), (left + rise, top), arrow=False)
    for number in range(3):
        begin = left + rise / 2 * (number + 1)
        over, full = begin + rise / 2, begin + rise
        drawing.line((begin, header), (over, half), arrow=False, dashed=True)
        drawing.line((over, half), (full, top), arrow=False)
        drawing.line((over, top), (over, half))
    drawing.words(left + 60, 270, "Solid: the slot acts from this row. Dashed: the younger row "
                  "is fed the same timesteps, a backlog at a time.", colour=GREY)  # fmt: skip
    drawing.words(left + 60, 288, "At the limit the older row is dropped and the younger acts on.",
                  colour=GREY)  # fmt: skip
    return drawing


DRAWINGS = (sequence, vocabulary, layouts, frames, forms, windows, checkpoints, caches)


def main() -> None:
    """Write every drawing."""
    FOLDER.mkdir(exist_ok=True)
    for draw in DRAWINGS:
        (FOLDER / f"{draw.__name__}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()

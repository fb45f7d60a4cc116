"""The episodes that an agent acts in, each in a slot of a decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from generalist.acting.forms import Header
from generalist.decoding.decoder import Decoder
from generalist.errors import GeneralistError


class RunningEpisodes:
    """The slots of a decoder, one for each running episode.

    Args:
        new_decoder: makes a decoder with a given number of slots.

    Attributes:
        decoder: the decoder; None before the first episode is ready.
    """

    def __init__(self, new_decoder: Callable[[int], Decoder]) -> None:
        self.decoder: Decoder | None = None
        self._new_decoder = new_decoder
        self._beginning: dict[int, tuple[Header, int]] = {}  # slot -> header and seed

    def begin(self, slot: int, header: Header, seed: int) -> None:
        """Begin an episode in a slot; the decoder reads its header at `ready`.

        Args:
            slot: number of the slot; an episode that ran there ends.
            header: head of the episode's window.
            seed: seed of the episode's sampling.
        """
        self._beginning[slot] = header, seed

    def rehead(self, slot: int, header: Header) -> None:
        """Give a running episode another header; it keeps the timesteps that it has seen."""
        if slot in self._beginning:
            self._beginning[slot] = header, self._beginning[slot][1]
        elif self.decoder is not None and slot < len(self.decoder) and self.decoder.running(slot):
            self.decoder.rehead(slot, header.ids, header.added)

    def ready(self, slots: Sequence[int]) -> Decoder:
        """Reset the beginning episodes among `slots`, and return a decoder with room for all.

        Episodes count as beginning until `settle`, so a caller may repeat an interrupted call.

        Raises:
            GeneralistError: an episode has not begun, or the decoder has no room for a new one
                while others run.
        """
        decoder, count = self.decoder, 1 + max((*slots, *self._beginning))
        if decoder is None or len(decoder) < count:
            if decoder is not None and self._going_on(decoder):
                raise GeneralistError(
                    f"The number of environments grew from {len(decoder)} to {count} in the middle "
                    "of episodes; start them all with first=True, or make a new Agent."
                )
            decoder = self.decoder = self._new_decoder(count)
        for slot in slots:
            if slot in self._beginning:
                header, seed = self._beginning[slot]
                decoder.reset(slot, header.ids, seed, header.added)
            elif not decoder.running(slot):
                raise GeneralistError(
                    f"Environment {slot} has not begun: pass first=True with the first "
                    "observation of its episode."
                )
        return decoder

    def _going_on(self, decoder: Decoder) -> bool:
        slots = (slot for slot in range(len(decoder)) if slot not in self._beginning)
        return any(decoder.running(slot) for slot in slots)

    def settle(self, slots: Iterable[int]) -> None:
        """Note that the decoder has read the headers of the episodes in these slots."""
        for slot in slots:
            self._beginning.pop(slot, None)

    def end(self, slots: Iterable[int]) -> None:
        """Forget the episodes in these slots."""
        for slot in slots:
            self._beginning.pop(slot, None)
            if self.decoder is not None and slot < len(self.decoder):
                self.decoder.release(slot)

    def release(self) -> None:
        """Forget all episodes, and free the decoder's memory."""
        self.decoder = None
        self._beginning.clear()

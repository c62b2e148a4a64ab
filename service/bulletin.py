"""The bulletin: the latest word on each channel's adoption, for boards; what a slow one misses, it reads later."""

from collections.abc import Iterable
from dataclasses import dataclass

from service.adoption import Adoption
from service.deployment import ChannelName
from service.frame import Frame


@dataclass(frozen=True, slots=True)
class Note:
    """What was said of a channel, and whether it was old then, as the frame has it."""

    number: int
    adoption: Adoption
    is_stale: bool
    frame: Frame


class Bulletin:
    """One note a channel, each with a number that grows over all of them."""

    def __init__(self) -> None:
        self._notes: dict[ChannelName, Note] = {}
        """In the order of their numbers."""
        self._number = 0

    def says(self, channel: ChannelName, adoption: Adoption, *, is_stale: bool) -> bool:
        """Tell whether this is what stands there."""
        note = self._notes.get(channel)
        return note is not None and note.is_stale == is_stale and note.adoption == adoption

    def post(self, channel: ChannelName, adoption: Adoption, frame: Frame, *, is_stale: bool) -> None:
        """Put a note in the place of the channel's last one."""
        self._number += 1
        self._notes.pop(channel, None)
        self._notes[channel] = Note(self._number, adoption, is_stale, frame)

    def keep(self, channels: Iterable[ChannelName]) -> None:
        """Take down the notes on all other channels."""
        for channel in self._notes.keys() - set(channels):
            del self._notes[channel]

    def after(self, number: int) -> list[Note]:
        """Give the notes since then, oldest first."""
        found = []
        for note in reversed(self._notes.values()):
            if note.number <= number:
                break
            found.append(note)
        return found[::-1]

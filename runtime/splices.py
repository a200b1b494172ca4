"""Recordings joined end to end, as from tuners, discs and camcorders: one clock for all.

In such files times start anew, or jump by hours, where one recording ends. What belongs together
is known by the video alone: its decoding times must go on, and all other streams move with it.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Self

from av.packet import Packet
from av.video.stream import VideoStream

# Containers with a clock that does not start at zero, and may start anew.
RUNNING_CLOCKS = ("mpegts", "mpeg")
_LONGEST_GAP = 3600  # seconds; no recording pauses for longer, such a jump is another clock
_SLACK = (-0.25, 1)  # seconds by which a time may miss its place within one recording


class Splices:
    """What to add to the times of a video's packets, given in the order of the file."""

    def __init__(self, time_base: Fraction, step: int) -> None:
        """`step`: units from frame to frame, where a packet does not say."""
        self.count = 0
        self.shifts = (0, 0)  # the last two, the newest at the end
        self.reached: int | None = None  # where the newest packet was placed
        self._second = round(1 / time_base)
        self._step = step
        self._next = 0

    @classmethod
    def of(cls, stream: VideoStream) -> Self | None:
        """For a stream of a container whose clock may start anew; None for any other."""
        base = stream.time_base
        if stream.container.format.name not in RUNNING_CLOCKS or base is None:
            return None
        return cls(base, max(1, round(1 / ((stream.average_rate or 25) * base))))

    def place(self, dts: int | None, duration: int | None) -> int:
        """What to add to a packet's times."""
        if dts is not None:
            if self.reached is not None and not self._goes_on(dts, self.shifts[1]):
                self._change(dts)
            self.reached = dts + self.shifts[1]
            self._next = self.reached + (duration or self._step)
        return self.shifts[1]

    def _goes_on(self, dts: int, shift: int) -> bool:
        early, late = (seconds * self._second for seconds in _SLACK)
        return early <= dts + shift - self._next <= late

    def _change(self, dts: int) -> None:
        before, now = self.shifts
        if self._goes_on(dts, before):  # the packet before was the odd one
            self.shifts = now, before
        elif not 0 < dts + now - self._next <= _LONGEST_GAP * self._second:
            self.shifts = now, self._next - dts
            self.count += 1


class Follower:
    """Moves a file's other streams with its video."""

    def __init__(self, video: VideoStream, splices: Splices) -> None:
        self._video = video
        self._splices = splices
        self._last: dict[int, int] = {}  # newest dts of each stream

    def follow(self, packets: "Iterator[Packet[Any] | None]") -> "Iterator[Packet[Any] | None]":
        """The packets but the video's, on one clock; what two recordings both have comes once."""
        for packet in packets:
            if packet is None:
                yield None
            elif packet.stream_index == self._video.index:
                self._splices.place(packet.dts, packet.duration)
            elif packet.dts is None or self._splices.reached is None or self._move(packet):
                yield packet

    def _move(self, packet: "Packet[Any]") -> bool:
        """Put the packet where it is nearer to the video; False if something is there already."""
        assert packet.dts is not None and self._splices.reached is not None
        ratio = Fraction(self._video.time_base or 1) / packet.time_base
        near = self._splices.reached * ratio - packet.dts
        shift = min((round(s * ratio) for s in self._splices.shifts), key=lambda s: abs(near - s))
        packet.dts += shift
        packet.pts = None if packet.pts is None else packet.pts + shift
        last = self._last.get(packet.stream_index)
        self._last[packet.stream_index] = max(packet.dts, packet.dts if last is None else last)
        return not (self._splices.count and last is not None and packet.dts <= last)

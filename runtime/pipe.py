"""Video from standard input, which can be read once: probing hands on what it has taken."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.media import main_video
from vr_trt.runtime.pipe_streams import FORMAT, LIVE_FORMATS, Handed, PutAside, Tee

DASH = Path("-")  # standard input or output
_STDIN = "pipe:0"


class Pipe:
    """Standard input, opened, with its first frame decoded; iterates over all frames, once."""

    def __init__(self) -> None:
        """Raises UsageError for what is no video, DamagedInputError where nothing decodes."""
        try:
            self.container = av.open(_STDIN, "r", metadata_errors="surrogateescape")
        except av.FFmpegError as error:
            raise UsageError(
                f"standard input is not a video that can be piped ({error.strerror}): send y4m or mkv"
            ) from error
        self.stream = main_video(self.container, DASH)
        self._others: PutAside | Handed | None = None
        self._tee = Tee(self.container)
        self.decoder = Decoder(self._tee, self.stream, DASH)
        self._frames = iter(self.decoder)
        first = next(self._frames, None)
        if first is None:
            raise DamagedInputError(
                "standard input: no picture could be decoded: send y4m or mkv, or name the file"
            )
        self.first = first

    def carries(self, live: bool) -> bool:
        """Whether the other streams can be copied; `live`: to standard output, not into a file."""
        formats = LIVE_FORMATS if live else (FORMAT,)
        return self.container.format.name in formats and len(self.container.streams) > 1

    @property
    def others(self) -> Path | None:
        """A file with all streams but the video, as far as they were read; None where none are."""
        return self._others.path if isinstance(self._others, PutAside) else None

    def put_aside(self) -> None:
        """Keep the other streams in a file, from now on. UsageError where that fails."""
        self._others = PutAside(self.container)
        self._tee.give_to(self._others.add)

    def hand_on(self) -> Handed:
        """Give the other streams' packets to who writes, from now on."""
        self._others = Handed(self.container)
        self._tee.give_to(self._others.add)
        return self._others

    def end(self) -> None:
        """The film has been read: no more packets come."""
        if self._others:
            self._others.end()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        if self._others is None:
            self._tee.give_to(None)
        return chain([self.first], self._frames)

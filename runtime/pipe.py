"""Video from standard input, which can be read once: probing hands on what it has taken."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.media import main_video
from vr_trt.runtime.pipe_streams import FORMAT, PutAside, Tee

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
                f"standard input is no video that can be piped ({error.strerror}): send y4m or mkv"
            ) from error
        self.stream = main_video(self.container, DASH)
        self._aside = PutAside(self.container) if self._has_others() else None
        source = Tee(self.container, self._aside) if self._aside else self.container
        self.decoder = Decoder(source, self.stream, DASH)
        self._frames = iter(self.decoder)
        first = next(self._frames, None)
        if first is None:
            raise DamagedInputError("standard input: no picture could be decoded")
        self.first = first

    def _has_others(self) -> bool:
        return self.container.format.name == FORMAT and len(self.container.streams) > 1

    @property
    def others(self) -> Path | None:
        """A file with all streams but the video, as far as they were read; None where none are."""
        return self._aside.path if self._aside else None

    def end(self) -> None:
        """The film has been read: that file is complete."""
        if self._aside:
            self._aside.end()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return chain([self.first], self._frames)

"""Video from standard input, which can be read once: probing hands on what it has taken."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av

from vr_trt.errors import DamagedInputError, UsageError
from vr_trt.runtime.decode import Decoder
from vr_trt.runtime.media import main_video

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
        self.decoder = Decoder(self.container, self.stream, DASH)
        self._frames = iter(self.decoder)
        first = next(self._frames, None)
        if first is None:
            raise DamagedInputError("standard input: no picture could be decoded")
        self.first = first

    def __iter__(self) -> Iterator[av.VideoFrame]:
        return chain([self.first], self._frames)

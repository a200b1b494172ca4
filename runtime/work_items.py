"""A film cut into items of work, each of which one worker restores by itself to the last bit.

An item is a run of whole segments. It begins where a shot does, which costs nothing: a shot has to
do with nothing before it. A long shot is cut into stretches as well: the causal VAE looks back a
bounded way, so a worker that starts some way before its stretch (runtime/entry.py) has the same
state there as one that came from the shot's start. That is compared, as it is when a stopped run is
taken up. The plan is a function of the shots alone: not of the workers, and not of how many.
"""

from collections.abc import Container
from dataclasses import dataclass, field, replace

from vr_trt.engines.profiles import FRAMES_PER_LATENT, Profile
from vr_trt.runtime.entry import Entry, entry_at
from vr_trt.runtime.film import begins_segment
from vr_trt.runtime.frames import Join

# A stretch's way to warm up is up to 320 frames, of which half go through the encoder alone.
STRETCH_FRAMES = 960  # after which a long shot is cut
REST_FRAMES = 480  # a shorter rest of the shot is not cut off


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What one worker does at a time; frames are counted from the first of the run."""

    joins: tuple[Join, ...]  # where its segments begin
    following: Join | None  # where the item after it begins; None: the film ends
    entry: Entry  # into the shot of the first join
    shots: frozenset[int]  # frames that begin a shot
    end: int  # the first frame that is not made
    stop: int  # the first frame that is not needed
    ends_shot: bool  # whether it is one of another shot, or beyond the film

    @property
    def first(self) -> int:
        """The first frame that is made."""
        return self.joins[0].frame

    @property
    def first_read(self) -> int:
        """The first frame that is needed."""
        return self.joins[0].shot + self.entry.first_read

    @property
    def checked(self) -> bool:
        """Whether it begins within a shot, so that its head is to be compared."""
        return self.joins[0].frame > self.joins[0].shot

    def from_shot_start(self) -> "Item":
        """The same, by the way that is right for any network."""
        return replace(self, entry=Entry(frame=self.joins[0].frame - self.joins[0].shot))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the cutting goes by."""

    profile: Profile
    step_latents: int  # of one VAE step
    stretches: bool = True  # whether shots are cut

    @property
    def step_frames(self) -> int:
        """Frames of one VAE step."""
        return FRAMES_PER_LATENT * self.step_latents

    @property
    def look_ahead(self) -> int:
        """Frames after one that may be needed for it: its window, and whole steps."""
        latents = self.profile.window_latents + 2 * self.step_latents
        return FRAMES_PER_LATENT * (latents + 1)


@dataclass(kw_only=True)
class Planner:
    """Gives items as soon as enough of the film is known."""

    rules: Rules
    done: Container[int] = ()  # first frames of segments that are there already
    start: Join = field(default_factory=lambda: Join(0, 0))  # all before it is done
    _shots: list[int] = field(default_factory=list)
    _joins: list[Join] = field(default_factory=list)  # of segments that belong to no item yet
    _known: int = 0  # frames
    _complete: bool = False

    def __post_init__(self) -> None:
        self._known = self.start.frame
        self._shots, self._joins = [self.start.shot], [self.start]
        self._last = self.start  # the join of the last segment

    def see(self, number: int, starts_shot: bool) -> None:
        """The film has frame `number`; those from the start on, in order."""
        self._known = number + 1
        if starts_shot and number > self._shots[-1]:
            self._shots.append(number)
        shot = self._shots[-1]
        if number > self._last.frame and begins_segment(
            number, shot, self._last, self.rules.step_frames
        ):
            self._last = Join(number, shot)
            self._joins.append(self._last)

    def end(self) -> None:
        """The film has no more frames."""
        self._complete = True

    def items(self) -> list[Item]:
        """Those that can be told by now and were not given yet."""
        found = []
        while self._joins:
            if self._joins[0].frame in self.done:
                if len(self._joins) == 1 and not self._complete:
                    break
                del self._joins[0]
                continue
            count = self._segments()
            if count is None:
                break
            item = self._item(count)
            if item is None:
                break
            found.append(item)
            del self._joins[:count]
        return found

    def _segments(self) -> int | None:
        """Segments of the next item; None where that cannot be said yet."""
        first = self._joins[0]
        for count, join in enumerate(self._joins[1:], 1):
            if join.frame == join.shot or join.frame in self.done:
                return count
            if self.rules.stretches and join.frame - first.frame >= STRETCH_FRAMES:
                rest = self._end_of_shot(join) or self._known
                if rest - join.frame >= REST_FRAMES:
                    return count
                if self._end_of_shot(join) is None:
                    return None
        return len(self._joins) if self._complete else None

    def _item(self, count: int) -> Item | None:
        first = self._joins[0]
        following = self._joins[count] if count < len(self._joins) else None
        end = following.frame if following else self._known
        stop, ends_shot = end, True
        if following is not None and following.frame > following.shot:
            shot_end, wanted = self._end_of_shot(following), end + self.rules.look_ahead
            if shot_end is None and self._known < wanted:
                return None
            stop = min(wanted, shot_end or wanted)
            ends_shot = stop == shot_end
        entry = entry_at(first.frame - first.shot, self.rules.profile, self.rules.step_latents)
        first_read = first.shot + entry.first_read
        return Item(
            joins=tuple(self._joins[:count]),
            following=following,
            entry=entry,
            shots=frozenset(shot for shot in self._shots if first_read <= shot < stop),
            end=end,
            stop=stop,
            ends_shot=ends_shot,
        )

    def _end_of_shot(self, join: Join) -> int | None:
        """Where the shot of `join` ends; None where that is not known yet."""
        later = [shot for shot in self._shots if shot > join.shot]
        return later[0] if later else (self._known if self._complete else None)

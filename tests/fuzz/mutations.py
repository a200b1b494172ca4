"""What is done to a file: each mutation is a pure function of its bytes and of a random source."""

import random
import struct
from collections.abc import Callable, Iterator

Mutation = Callable[[bytes, random.Random], bytes]
WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEAD = 1024  # bytes in which most headers lie
_BOXES = frozenset(
    [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"moof", b"traf", b"mvex"]
)
# Whose fields are times, counts, sizes and places.
_FIELDS = (
    *(b"mvhd", b"tkhd", b"mdhd", b"elst", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"co64"),
    *(b"stsd", b"avcC", b"hvcC", b"colr", b"pasp", b"tfhd", b"tfdt", b"trun", b"hdlr", b"ftyp"),
    *(b"avih", b"strh", b"strf", b"idx1", b"IHDR", b"IDAT", b"VP8 ", b"fmt ", b"YUV4"),
)
# Matroska's elements by their identifiers: times, sizes, lengths, blocks.
_ELEMENTS = (
    *(b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\x15\x49\xa9\x66"),
    *(b"\xe7", b"\xa3", b"\xa0", b"\xa1", b"\xae", b"\xe0", b"\xb0", b"\xba", b"\x9b"),
    *(b"\x2a\xd7\xb1", b"\x44\x89", b"\x23\xe3\x83", b"\x1c\x53\xbb\x6b", b"\x63\xa2"),
)


def truncate(data: bytes, source: random.Random) -> bytes:
    """Cut the end off."""
    return data[: source.randrange(len(data) + 1)]


def flip_bits(data: bytes, source: random.Random) -> bytes:
    """Turn a few bits over."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 2, 8, 64))):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def zero_run(data: bytes, source: random.Random) -> bytes:
    """Zeros in place of a stretch."""
    start, length = _stretch(data, source)
    return data[:start] + bytes(length) + data[start + length :]


def noise_run(data: bytes, source: random.Random) -> bytes:
    """Noise in place of a stretch."""
    start, length = _stretch(data, source)
    return data[:start] + source.randbytes(length) + data[start + length :]


def delete_run(data: bytes, source: random.Random) -> bytes:
    """A stretch is missing: everything after it moves."""
    start, length = _stretch(data, source)
    return data[:start] + data[start + length :]


def repeat_run(data: bytes, source: random.Random) -> bytes:
    """A stretch comes twice."""
    start, length = _stretch(data, source)
    return data[: start + length] + data[start:]


def swap_chunks(data: bytes, source: random.Random) -> bytes:
    """Two stretches of one length change places."""
    length = source.randrange(1, max(2, len(data) // 4))
    a, b = sorted(source.randrange(max(1, len(data) - length)) for _ in range(2))
    if a + length > b:
        return data[b:] + data[:b]
    parts = data[:a], data[a : a + length], data[a + length : b], data[b : b + length]
    return parts[0] + parts[3] + parts[2] + parts[1] + data[b + length :]


def header_word(data: bytes, source: random.Random) -> bytes:
    """A word near the start becomes an extreme one."""
    return _with_word(data, source.randrange(min(HEAD, len(data))), source)


def box_size(data: bytes, source: random.Random) -> bytes:
    """A box of MP4 says a wrong length; of other files, a word anywhere becomes extreme."""
    places = [at for at, _ in boxes(data)]
    if not places:
        return _with_word(data, source.randrange(len(data)), source)
    at = source.choice(places)
    (size,) = struct.unpack_from(">I", data, at)
    wrong = source.choice((*WORDS, size - 1, size + 1, size // 2, size * 2)) & 0xFFFFFFFF
    return data[:at] + struct.pack(">I", wrong) + data[at + 4 :]


def box_field(data: bytes, source: random.Random) -> bytes:
    """A field of a header, of an index or of a table of times becomes extreme."""
    places = [at for name in _FIELDS for at in _found(data, name)]
    if not places:
        return header_word(data, source)
    at = source.choice(places) + 4
    return _with_word(data, min(at + 4 * source.randrange(16), len(data) - 1), source)


def element(data: bytes, source: random.Random) -> bytes:
    """An element of Matroska says a wrong length, or holds something extreme."""
    places = [at + len(name) for name in _ELEMENTS for at in _found(data, name)]
    if not places or not data.startswith(b"\x1a\x45\xdf\xa3"):
        return box_field(data, source)
    at = source.choice(places)
    if at >= len(data):
        return data
    if source.random() < 0.5:
        wrong = bytes([source.choice((0x01, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xFF, 0x08))])
        return data[:at] + wrong + data[at + 1 :]
    return _with_word(data, min(at + 1 + source.randrange(8), len(data) - 1), source)


MEDIA: tuple[Mutation, ...] = (
    *(truncate, flip_bits, zero_run, noise_run, delete_run, repeat_run, swap_chunks),
    *(header_word, box_size, box_field, element),
)


def swap_words(data: bytes, source: random.Random) -> bytes:
    """A word of a text becomes one that nobody expects there."""
    strange = (
        *("-1", "1e9", "0", "null", "[]", "{}", '"', "NaN", "é", "\x00", "9" * 40, "true", "\n"),
        *("١٢", "../..", "#", "1.5", ",", ":", "99999999999999999999", '"x"', "{", "]"),
    )
    words = data.split(b" ")
    words[source.randrange(len(words))] = source.choice(strange).encode()
    return b" ".join(words)


def drop_line(data: bytes, source: random.Random) -> bytes:
    """A line is missing, or comes at another place."""
    lines = data.splitlines(keepends=True)
    line = lines.pop(source.randrange(len(lines))) if lines else b""
    if source.random() < 0.5:
        lines.insert(source.randrange(len(lines) + 1), line)
    return b"".join(lines)


def strange_bytes(data: bytes, source: random.Random) -> bytes:
    """Bytes that are no UTF-8, or another encoding's mark."""
    at = source.randrange(len(data) + 1)
    return data[:at] + source.choice((b"\xff\xfe", b"\xc3", b"\xef\xbb\xbf", b"\r")) + data[at:]


TEXT: tuple[Mutation, ...] = (
    *(truncate, flip_bits, noise_run, delete_run, repeat_run, swap_chunks),
    *(swap_words, swap_words, drop_line, strange_bytes),
)


def mutate(data: bytes, source: random.Random, mutations: tuple[Mutation, ...]) -> bytes:
    """One to three mutations, one after the other."""
    for _ in range(source.choice((1, 1, 2, 3))):
        if data:
            data = source.choice(mutations)(data, source)
    return data


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Place and name of the boxes of an MP4 file, the inner ones too."""
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, name = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > stop or not name.isascii():
            return
        yield start, name
        if name in _BOXES:
            yield from boxes(data, start + 8, start + size)
        start += size


def _found(data: bytes, name: bytes) -> Iterator[int]:
    """Where the name stands, at most a hundred times."""
    at = -1
    for _ in range(100):
        at = data.find(name, at + 1)
        if at < 0:
            return
        yield at


def _stretch(data: bytes, source: random.Random) -> tuple[int, int]:
    """Start and length of a part: mostly short, now and then half of the file."""
    length = min(len(data), source.choice((1, 4, 16, 64, 256, 1024, max(1, len(data) // 2))))
    return source.randrange(len(data) - length + 1), length


def _with_word(data: bytes, at: int, source: random.Random) -> bytes:
    """An extreme number of one, two, four or eight bytes at a place, in either order."""
    size = source.choice((1, 2, 4, 4, 8))
    value = source.choice(WORDS) & (256**size - 1)
    word = value.to_bytes(size, source.choice(("big", "little")))
    return (data[:at] + word + data[at + size :])[: max(len(data), 1)]

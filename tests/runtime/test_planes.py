from collections.abc import Callable
from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest
from av.video.format import VideoFormat

from vr_trt.runtime.packing import nearest_planar, packing_of
from vr_trt.runtime.planes import Planes, build_frame, take_planes, turn_planes

MakePicture = Callable[[int, int, int, str], Planes]

KNOWN = [
    *("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p"),
    *("yuv420p10le", "yuv420p10be", "yuv422p12le", "yuv444p16le", "yuva444p10le"),
    *("nv12", "nv21", "nv16", "nv24", "nv42", "p010le", "p010be", "p012le", "p016le", "p210le"),
    *("p410le", "yuyv422", "uyvy422", "yvyu422"),
    *("gray", "gray10le", "gray16be", "ya8", "ya16le"),
    *("rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "0bgr", "rgb48le", "bgr48be"),
    *("rgba64le", "gbrp", "gbrap", "gbrp10le", "gbrp16be"),
]
UNKNOWN = {
    "pal8": "gbrp",
    "monob": "gray",
    "rgb565le": "gbrp",
    "x2rgb10le": "gbrp10le",
    "y210le": "yuv422p10le",
    "vuyx": "yuv444p",
    "uyyvyy411": "yuv411p",
    "grayf32le": "gray16le",
    "gbrpf32le": "gbrp16le",
    "yuv444p10msble": "yuv444p10le",
}


@pytest.mark.parametrize("size", [(34, 20), (17, 33), (1, 1), (2, 2)])
@pytest.mark.parametrize("name", KNOWN)
def test_planes_go_in_and_out_unchanged(
    name: str, size: tuple[int, int], make_picture: MakePicture
) -> None:
    planes = make_picture(3, *size, name)
    taken = take_planes(build_frame(planes, name))
    packing = packing_of(name)
    assert packing is not None
    assert np.array_equal(taken[0], planes[0])
    for out, given in zip(taken[1:], planes[1:], strict=True):
        assert out.flags.c_contiguous and out.flags.owndata and out.dtype == given.dtype
        neutral = np.full_like(taken[0], 1 << (packing.bits - 1))
        assert np.array_equal(out, neutral if packing.layout == "gray" else given)


@pytest.mark.parametrize("name", [name for name in KNOWN if not name.startswith("yuvj")])
def test_planes_agree_with_ffmpeg(name: str, make_picture: MakePicture) -> None:
    """swscale repacks within a family without loss: an independent reading of our layouts.

    Not so yuvj, whose range it would change: one more reason to do it by hand.
    """
    planes = make_picture(1, 34, 20, name)
    repacked = build_frame(planes, name).reformat(format=nearest_planar(name), threads=1)
    gray = nearest_planar(name).startswith("gray")  # one plane of interest
    for ours, theirs in zip(planes, take_planes(repacked)[: 1 if gray else 3], strict=not gray):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_formats_are_unpacked_within_their_family(name: str) -> None:
    assert packing_of(name) is None
    assert nearest_planar(name) == UNKNOWN[name]
    take_planes(av.VideoFrame(16, 8, name))  # swscale knows the way


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_the_nearest_planar_format_exists_and_is_described(name: str) -> None:
    planar = nearest_planar(name)
    assert packing_of(planar) is not None
    assert VideoFormat(planar).is_rgb == (VideoFormat(name).is_rgb or name == "pal8")


def test_bottom_up_pictures_are_read_the_right_way(make_picture: MakePicture) -> None:
    planes = make_picture(0, 34, 20, "yuv420p")
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=34, height=20, format=VideoFormat("yuv420p"), time_base=Fraction(1)
    )
    flip, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(flip)
    flip.link_to(sink)
    graph.configure()
    graph.push(build_frame(planes, "yuv420p"))
    flipped = graph.pull()
    assert isinstance(flipped, av.VideoFrame) and flipped.planes[0].line_size < 0
    for ours, given in zip(take_planes(flipped), planes, strict=True):
        assert np.array_equal(ours, given[::-1])


def test_wrong_plane_sizes_are_refused(make_picture: MakePicture) -> None:
    y, u, _ = make_picture(0, 34, 20, "yuv420p")
    with pytest.raises(ValueError, match="plane 2"):
        build_frame((y, u, u[:-1]), "yuv420p")


def test_a_quarter_turn_moves_the_top_left_to_the_top_right() -> None:
    plane = np.arange(6, dtype=np.uint8).reshape(2, 3)
    right, _, _ = turn_planes((plane, plane, plane), 90, mirrored=False)
    assert right.tolist() == [[3, 0], [4, 1], [5, 2]]
    around, _, _ = turn_planes((plane, plane, plane), 180, mirrored=False)
    assert around.tolist() == [[5, 4, 3], [2, 1, 0]]
    both, _, _ = turn_planes((plane, plane, plane), 90, mirrored=True)
    assert both.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert both.flags.c_contiguous

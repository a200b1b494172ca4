"""Groups of frames by the kernels themselves: what the whole gives; see `tests.kernel_runs`."""

import pytest
import torch
from tests.kernel_runs import DEVICE
from tests.vae_films import CALLS, KINDS, Film, Kind, clips, small_coder

from vr_trt.engines import vae_walk
from vr_trt.export.config import VaeConfig
from vr_trt.export.fp8_vae import observe
from vr_trt.kernels import conv_few, conv_sizes, group_norm
from vr_trt.kernels.tuning import CHIPS, tuned

CONFIG = VaeConfig(channels=(16, 16, 16, 32), encoder_resnets=1, decoder_resnets=1, groups=4)


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile for a frame, and `conv_out` by taps."""
    monkeypatch.setattr(conv_sizes, "_INTERPRETED", {**conv_sizes._INTERPRETED, "BLOCK_M": 1024})
    narrow = {**tuned("conv_few", CHIPS[0]), "FROM": 1}
    monkeypatch.setattr(conv_few, "tuned", lambda kernel, chip: narrow)
    monkeypatch.setattr(group_norm, "_PIXELS", 1024)


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_the_whole_bit_for_bit(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers in fp16 and in E4M3, over two shots; results, and the states after every call."""
    plain = small_coder(kind, torch.float16, CONFIG, DEVICE)
    source = torch.empty(1, 3 if kind == "encoder" else 16, dtype=torch.float16, device=DEVICE)
    amax = observe(plain, [next(clips(kind, source))])
    assert amax
    found: list[list[torch.Tensor]] = []
    for groups in (vae_walk.groups_of, lambda count: [range(count)]):
        monkeypatch.setattr(vae_walk, "groups_of", groups)
        film = Film(plain, amax)
        found.append([])
        for call, x in zip(CALLS, clips(kind, source), strict=True):
            found[-1] += [film.run(call, x), *(state.float() for state in film.states.values())]
    assert len(found[0]) == len(found[1]) > len(CALLS)
    for mine, whole in zip(*found, strict=True):
        assert not mine.isnan().any() and torch.equal(mine, whole)

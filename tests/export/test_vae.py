"""The plain VAE: whole, streamed, and what may and may not couple frames."""

from collections.abc import Callable

import pytest
import torch
from tests.networks import (
    GOLDEN_VAE,
    GOLDEN_VAE_CASES,
    golden_tensors,
    golden_vae,
    loud_weights,
    make_vae,
    normal,
)
from torch import Tensor

from vr_trt.export.causal import FrameAttention, FrameNorm, Stream
from vr_trt.export.config import VAE_NANO, VaeConfig
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import LOGVAR_RANGE, VideoVae, split_moments

TOLERANCE = 2e-5
STREAMED = 3e-6  # of the whole clip: only the order of sums differs
OTHER = VaeConfig(channels=(6, 3, 9, 12), encoder_resnets=1, decoder_resnets=2, groups=3)


@pytest.fixture(scope="module", params=["golden", "nano", "other"])
def vae(request: pytest.FixtureRequest) -> VideoVae:
    if request.param == "golden":
        return golden_vae()
    config = VAE_NANO if request.param == "nano" else OTHER
    return make_vae(config, loud_weights(config))


@pytest.mark.parametrize("case", GOLDEN_VAE_CASES)
def test_golden_moments_and_pictures(case: str) -> None:
    golden = golden_tensors("vae_tiny_cases")
    moments = golden_vae().encode(golden[f"{case}.x"])
    mean, logvar = split_moments(moments)
    for name, ours in {"moments": moments, "mean": mean, "logvar": logvar}.items():
        assert relative_rms(ours, golden[f"{case}.{name}"]) <= TOLERANCE
    decoded = golden_vae().decode(golden[f"{case}.z"])
    assert relative_rms(decoded, golden[f"{case}.dec"]) <= TOLERANCE


def test_the_log_variance_is_clamped_and_the_mean_is_not() -> None:
    moments = torch.linspace(-90, 90, 64).view(1, 2, 32, 1, 1).transpose(1, 2)  # both signs in each
    mean, logvar = split_moments(moments)
    assert torch.equal(mean, moments[:, :16])
    assert torch.equal(logvar, moments[:, 16:].clamp(-30, 20))
    assert logvar.min() == -30 and logvar.max() == 20
    assert LOGVAR_RANGE == (-30, 20)


def splits(latents: int, k: int) -> list[int]:
    """The start's two latents, then k a step."""
    return [2, *[k] * ((latents - 2) // k)]


@pytest.mark.parametrize(("latents", "k"), [(2, 1), (3, 1), (4, 2), (5, 1), (5, 3), (8, 2), (8, 3)])
def test_streamed_is_the_whole_clip(latents: int, k: int, vae: VideoVae) -> None:
    x, z = (
        normal(1, 3, 4 * latents - 3, 16, 24),
        normal(1, vae.config.latent_channels, latents, 2, 3),
    )
    moments, pictures, at = [], [], 0
    encoder: dict[str, Tensor] | None = None
    decoder: dict[str, Tensor] | None = None
    for count in splits(latents, k):
        first, last = max(4 * at - 3, 0), 4 * (at + count) - 3
        part, encoder = vae.encode_stream(x[:, :, first:last], encoder)
        picture, decoder = vae.decode_stream(z[:, :, at : at + count], decoder)
        assert part.shape[2] == count and picture.shape[2] == last - first
        moments.append(part)
        pictures.append(picture)
        at += count
    assert at == latents
    for ours, wanted in ((moments, vae.encode(x)), (pictures, vae.decode(z))):
        assert relative_rms(torch.cat(ours, 2), wanted) <= STREAMED
        # and each frame: a rare error must not drown in many right ones
        for ours_t, wanted_t in zip(torch.cat(ours, 2).unbind(2), wanted.unbind(2), strict=True):
            assert relative_rms(ours_t, wanted_t) <= 2 * STREAMED


def test_a_stream_may_start_with_one_frame(vae: VideoVae) -> None:
    x, z = normal(1, 3, 9, 16, 16), normal(1, vae.config.latent_channels, 3, 2, 2)
    first, state = vae.encode_stream(x[:, :, :1], None)
    second, _ = vae.encode_stream(x[:, :, 1:], state)
    assert relative_rms(torch.cat([first, second], 2), vae.encode(x)) <= STREAMED
    one, state = vae.decode_stream(z[:, :, :1], None)
    more, _ = vae.decode_stream(z[:, :, 1:], state)
    assert relative_rms(torch.cat([one, more], 2), vae.decode(z)) <= STREAMED


@pytest.mark.parametrize("size", [(2, 2), (1, 3)])
def test_cut_by_resolution_it_is_the_same(size: tuple[int, int], vae: VideoVae) -> None:
    """The high resolutions frame by frame, the low ones in slices; their states are apart."""
    h, w = size
    x, z = normal(1, 3, 9, 8 * h, 8 * w), normal(1, vae.config.latent_channels, 3, h, w)
    features = stream_of(vae.encoder.fine, list(x.split(1, 2)))
    coarse = stream_of(vae.encoder.coarse, list(features.split([5, 4], 2)))
    assert relative_rms(coarse, vae.encode(x)) <= STREAMED
    slices = stream_of(vae.decoder.coarse, list(z.split([2, 1], 2)))
    frames = stream_of(vae.decoder.fine, list(slices.split(1, 2)))
    assert relative_rms(frames, vae.decode(z)) <= STREAMED


def stream_of(run: Callable[[Tensor, Stream], Tensor], parts: list[Tensor]) -> Tensor:
    out, now = [], Stream()
    for part in parts:
        out.append(run(part, now))
        now = Stream(now.next)
    return torch.cat(out, 2)


def test_the_halves_keep_all_states_between_them(vae: VideoVae) -> None:
    for coder, x in (
        (vae.encoder, normal(1, 3, 5, 16, 16)),
        (vae.decoder, normal(1, vae.config.latent_channels, 2, 2, 2)),
    ):
        first, second = (
            (coder.fine, coder.coarse) if coder is vae.encoder else (coder.coarse, coder.fine)
        )
        one, two = Stream(), Stream()
        second(first(x, one), two)
        fine, coarse = (one, two) if coder is vae.encoder else (two, one)
        assert list(fine.next) == coder.fine_states
        assert set(fine.next) | set(coarse.next) == set(coder.states)
        assert not set(fine.next) & set(coarse.next)


def test_a_shot_starts_without_a_past() -> None:
    vae, x = golden_vae(), normal(1, 3, 5, 16, 16)
    first, state = vae.encode_stream(x, None)
    again, _ = vae.encode_stream(x, None)
    assert torch.equal(first, again)
    later, _ = vae.encode_stream(x[:, :, :4], state)
    assert not torch.allclose(later, first[:, :, :1], atol=1e-3)


def test_states_are_those_of_the_specification() -> None:
    vae = golden_vae()
    _, encoder = vae.encode_stream(normal(1, 3, 5, 16, 16), None)
    _, decoder = vae.decode_stream(normal(1, 16, 2, 2, 2), None)
    assert (len(encoder), len(decoder)) == (24, 33)
    assert set(encoder) == set(vae.encoder.states) and set(decoder) == set(vae.decoder.states)
    kept = {name: state.shape[2] for name, state in encoder.items()}
    halving = {name for name, frames in kept.items() if frames == 1}
    assert halving == {f"down_blocks.{i}.downsamplers.0.conv" for i in (1, 2)}
    assert {state.shape[2] for state in decoder.values()} == {2}


def test_later_frames_do_not_change_earlier_latents(vae: VideoVae) -> None:
    """Latent n is of frames up to 4n: exactly those."""
    x = normal(1, 3, 13, 16, 16)
    before = vae.encode(x)
    for frame in (1, 4, 5, 8, 12):
        changed = x.clone()
        changed[:, :, frame] += 1
        same = (vae.encode(changed) - before).abs().amax((0, 1, 3, 4))
        first = (frame + 3) // 4
        assert (same[:first] <= 1e-5).all()
        assert same[first] > 1e-3


def test_later_latents_do_not_change_earlier_frames(vae: VideoVae) -> None:
    z = normal(1, vae.config.latent_channels, 4, 2, 2)
    before = vae.decode(z)
    for latent in (1, 2, 3):
        changed = z.clone()
        changed[:, :, latent] += 1
        same = (vae.decode(changed) - before).abs().amax((0, 1, 3, 4))
        first = 4 * latent - 3
        assert (same[:first] <= 1e-5).all()
        assert same[first] > 1e-3


def test_the_norm_knows_one_frame_only() -> None:
    norm = FrameNorm(2, 6, 1e-6)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = normal(1, 6, 4, 5, 3) * torch.tensor([1.0, 10.0, 100.0, 0.1]).view(-1, 1, 1)
    with torch.no_grad():
        ours = norm(x)
        for t in range(4):
            groups = x[0, :, t].reshape(2, -1)
            spread = groups.var(1, correction=0, keepdim=True)
            wanted = (groups - groups.mean(1, keepdim=True)) / (spread + 1e-6).sqrt()
            wanted = wanted.view(6, 5, 3) * norm.weight[:, None, None] + norm.bias[:, None, None]
            assert torch.allclose(ours[0, :, t], wanted, atol=1e-5)


def test_the_attention_knows_one_frame_only() -> None:
    attention = FrameAttention(8, FrameNorm(2, 8, 1e-6))
    x = normal(1, 8, 3, 4, 5)
    with torch.no_grad():
        whole = attention(x)
        singles = [attention(x[:, :, t : t + 1]) for t in range(3)]
        assert torch.allclose(whole, torch.cat(singles, 2), atol=1e-6)
        y = attention.group_norm(x)[0, :, 1].flatten(1).t()
        q, k, v = attention.to_q(y), attention.to_k(y), attention.to_v(y)
        wanted = attention.to_out[0]((q @ k.t() / 8**0.5).softmax(-1) @ v).t().view(8, 4, 5)
        assert torch.allclose(whole[0, :, 1], x[0, :, 1] + wanted, atol=1e-5)


def test_the_vae_takes_a_batch(vae: VideoVae) -> None:
    x, z = normal(2, 3, 5, 16, 16), normal(2, vae.config.latent_channels, 2, 2, 2)
    for run, value in ((vae.encode, x), (vae.decode, z)):
        both = run(value)
        for i in range(2):
            assert relative_rms(both[i : i + 1], run(value[i : i + 1])) <= STREAMED


def test_channels_follow_the_configuration() -> None:
    shapes = {k: tuple(v.shape) for k, v in golden_vae().state_dict().items()}
    assert shapes["encoder.conv_in.weight"] == (GOLDEN_VAE.channels[0], 3, 3, 3, 3)
    assert shapes["decoder.up_blocks.2.upsamplers.0.upscale_conv.weight"][0] == 4 * 16

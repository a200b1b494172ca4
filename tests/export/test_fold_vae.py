"""The folded VAE equals the plain one: borders, biases, first frames, odd sizes, any split."""

from collections.abc import Callable
from dataclasses import replace

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

from vr_trt.errors import ModelError
from vr_trt.export.causal import FrameNorm, Stream
from vr_trt.export.config import VAE_NANO, VaeConfig
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.golden import relative_rms
from vr_trt.export.vae import IMAGE, VIDEO, Decoder, Encoder, Form, VideoVae, split_moments

TOLERANCE = 2e-5
OTHER = VaeConfig(
    channels=(6, 3, 9, 12), encoder_resnets=1, decoder_resnets=2, groups=3, scaling=0.5
)
WIDE = VaeConfig(channels=(4, 8, 4, 12), encoder_resnets=3, decoder_resnets=1, groups=2)
CONFIGS = {"golden": GOLDEN_VAE, "nano": VAE_NANO, "other": OTHER, "wide": WIDE}
LATENT_SIZES = [(1, 1), (1, 3), (5, 3), (7, 9)]
SPLITS = [[2], [3], [4], [2, 1], [2, 2], [3, 1], [2, 1, 1, 2]]
# The largest size is for the borders: one split is enough.
CLIPS = [(split, size) for size in LATENT_SIZES for split in SPLITS if size[0] < 7 or split == [3]]
Coder = Encoder | Decoder


class Pair:
    """A plain VAE and its folded forms."""

    def __init__(self, name: str) -> None:
        self.config = CONFIGS[name]
        self.weights = (
            golden_tensors("vae_tiny_weights") if name == "golden" else loud_weights(self.config)
        )
        self.plain: VideoVae = (
            golden_vae() if name == "golden" else make_vae(self.config, self.weights)
        )

    def encoder(self, form: Form) -> Encoder:
        return fold_encoder(self.config, self.weights, form)

    def decoder(self, form: Form) -> Decoder:
        return fold_decoder(self.config, self.weights, form)

    def latent(self, x: Tensor) -> Tensor:
        """What the folded encoder gives."""
        return split_moments(self.plain.encode(x))[0] * self.config.scaling

    def frames(self, latent: Tensor) -> Tensor:
        """What the folded decoder gives."""
        return self.plain.decode(latent / self.config.scaling)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def stream(network: Coder, parts: list[Tensor]) -> Tensor:
    """The network over a clip in parts, each with the state that the last one gave."""
    out, now = [], Stream()
    for part in parts:
        out.append(network(part, now))
        assert set(now.next) == set(network.states)
        now = Stream(now.next)
    return torch.cat(out, 2)


def cut(x: Tensor, split: list[int], *, frames: bool) -> list[Tensor]:
    """Latents in `split`, or the frames that belong to them: 4n - 3 for the first n, then 4n."""
    sizes = [4 * n - 3 * (i == 0) for i, n in enumerate(split)] if frames else split
    return list(x.split(sizes, 2))


def compare(ours: Tensor, wanted: Tensor) -> None:
    """Every frame on its own, and of each the outermost two pixels on their own."""
    assert ours.shape == wanted.shape
    border = torch.ones(wanted.shape[-2:], dtype=torch.bool)
    border[2:-2, 2:-2] = False
    for t in range(wanted.shape[2]):
        for where in (border, ~border):
            if where.any():
                error = relative_rms(ours[:, :, t][..., where], wanted[:, :, t][..., where])
                assert error <= TOLERANCE, (t, bool(where[0, 0]), error)


@pytest.mark.parametrize("case", GOLDEN_VAE_CASES)
def test_folded_golden_cases(case: str) -> None:
    pair, golden = Pair("golden"), golden_tensors("vae_tiny_cases")
    form = IMAGE if golden[f"{case}.x"].shape[2] == 1 else VIDEO
    scaling = GOLDEN_VAE.scaling
    compare(pair.encoder(form)(golden[f"{case}.x"], Stream()), golden[f"{case}.mean"] * scaling)
    compare(pair.decoder(form)(golden[f"{case}.z"] * scaling, Stream()), golden[f"{case}.dec"])


@pytest.mark.parametrize(("split", "size"), CLIPS, ids=str)
def test_folded_clips_in_any_split(split: list[int], size: tuple[int, int], pair: Pair) -> None:
    (h, w), latents = size, sum(split)
    z = normal(1, pair.config.latent_channels, latents, h, w, seed=latents)
    compare(stream(pair.decoder(VIDEO), cut(z, split, frames=False)), pair.frames(z))
    x = normal(1, 3, 4 * latents - 3, 8 * h, 8 * w, seed=latents)
    compare(stream(pair.encoder(VIDEO), cut(x, split, frames=True)), pair.latent(x))


@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
def test_folded_and_cut_by_resolution(size: tuple[int, int], pair: Pair) -> None:
    """Fine frame by frame, coarse in slices of a start and two steps."""
    h, w = size
    x, z = normal(1, 3, 13, 8 * h, 8 * w), normal(1, pair.config.latent_channels, 4, h, w)
    encoder, decoder = pair.encoder(VIDEO), pair.decoder(VIDEO)
    features = half_stream(encoder.fine, cut(x, [1] * 13, frames=False))
    assert features.shape[2:] == (13, 4 * h, 4 * w)
    compare(half_stream(encoder.coarse, cut(features, [5, 4, 4], frames=False)), pair.latent(x))
    features = half_stream(decoder.coarse, cut(z, [2, 1, 1], frames=False))
    assert features.shape[2:] == (13, 4 * h, 4 * w)
    compare(half_stream(decoder.fine, cut(features, [1] * 13, frames=False)), pair.frames(z))


def half_stream(run: Callable[[Tensor, Stream], Tensor], parts: list[Tensor]) -> Tensor:
    out, now = [], Stream()
    for part in parts:
        out.append(run(part, now))
        now = Stream(now.next)
    return torch.cat(out, 2)


@pytest.mark.parametrize("size", LATENT_SIZES)
def test_a_picture_is_a_clip_of_one_frame(size: tuple[int, int], pair: Pair) -> None:
    h, w = size
    x, z = normal(1, 3, 1, 8 * h, 8 * w), normal(1, pair.config.latent_channels, 1, h, w)
    encoder, decoder = pair.encoder(IMAGE), pair.decoder(IMAGE)
    compare(encoder(x, Stream()), pair.latent(x))
    compare(decoder(z, Stream()), pair.frames(z))
    assert encoder.states == decoder.states == []
    parameters = [*encoder.parameters(), *decoder.parameters()]
    assert {p.shape[2] for p in parameters if p.ndim == 5} == {1}  # a network of two dimensions


def without_upscale_bias(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v * 0 if k.endswith("upscale_conv.bias") else v for k, v in weights.items()}


@pytest.mark.parametrize("form", [VIDEO, IMAGE], ids=["video", "image"])
def test_an_upscale_without_bias_needs_no_channel_for_it(form: Form) -> None:
    weights = loud_weights(WIDE)
    widths = []
    for given in (weights, without_upscale_bias(weights)):
        decoder, plain = fold_decoder(WIDE, given, form), make_vae(WIDE, given)
        latents = 1 if form is IMAGE else 3
        z = normal(1, 16, latents, 3, 2)
        compare(decoder(z, Stream()), plain.decode(z / WIDE.scaling))
        state = decoder.state_dict()
        names = [k for k in state if ".upsamplers." in k and k.endswith("weight")]
        assert len(names) == (3 if form is IMAGE else 7)
        widths.append([state[name].shape[1] for name in names])
    assert [more - 1 for more in widths[0]] == widths[1]


def test_the_state_of_an_upsampling_is_small() -> None:
    """One low-resolution frame in place of two high-resolution ones, where time is doubled."""
    pair = Pair("golden")
    z, ours = normal(1, 16, 2, 3, 2), Stream()
    pair.decoder(VIDEO)(z, ours)
    _, plain = pair.plain.decode_stream(z / pair.config.scaling, None)
    assert len(ours.next) == len(plain) == 33
    up = {name: state for name, state in ours.next.items() if ".upsamplers." in name}
    assert [state.shape[2] for state in up.values()] == [1, 1, 2]
    for name, state in up.items():
        assert 4 * state[0, 0, 0].numel() == plain[f"{name}.conv"][0, 0, 0].numel()
    for name in ours.next.keys() - up.keys() - {"conv_in"}:
        assert torch.allclose(ours.next[name], plain[name], atol=1e-4)


def test_the_first_steps_of_two_shots_differ_from_later_ones() -> None:
    """Frame 1 is dropped at a shot's start: the same latents decode otherwise in its middle."""
    decoder, z = Pair("golden").decoder(VIDEO), normal(1, 16, 2, 2, 2)
    first = Stream()
    start = decoder(z, first)
    later = decoder(z, Stream(first.next))
    assert start.shape[2] == 5 and later.shape[2] == 8
    assert not torch.allclose(start, later[:, :, 3:], atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 0.05)], ids=["fp16", "bf16"]
)
def test_sixteen_bits_stay_near(dtype: torch.dtype, limit: float) -> None:
    pair = Pair("golden")
    x, z = normal(1, 3, 5, 16, 16), normal(1, 16, 2, 2, 2)
    encoder = fold_encoder(pair.config, pair.weights, VIDEO, dtype)
    decoder = fold_decoder(pair.config, pair.weights, VIDEO, dtype)
    for network, value, wanted in ((encoder, x, pair.latent(x)), (decoder, z, pair.frames(z))):
        assert {v.dtype for v in network.state_dict().values()} == {dtype}
        rough = network(value.to(dtype), Stream())
        assert rough.dtype == dtype and relative_rms(rough, wanted) < limit


def test_the_scaling_is_in_the_encoder_and_out_of_the_decoder() -> None:
    weights = loud_weights(OTHER)
    state = fold_encoder(OTHER, weights, VIDEO).state_dict()
    assert torch.equal(state["conv_out.bias"], weights["encoder.conv_out.bias"][:16] * 0.5)
    state = fold_decoder(OTHER, weights, replace(VIDEO, stream=1.0)).state_dict()
    assert torch.equal(state["conv_in.weight"], weights["decoder.conv_in.weight"] * 2)
    assert torch.equal(state["conv_in.bias"], weights["decoder.conv_in.bias"])


@pytest.mark.parametrize("stream", [1.0, 2.0**-6])
@pytest.mark.parametrize("form", [VIDEO, IMAGE], ids=["video", "image"])
def test_what_lies_between_norms_may_be_scaled(form: Form, stream: float, pair: Pair) -> None:
    """Nothing else changes: faint pictures, too, where the norms' epsilon counts."""
    form, frames = replace(form, stream=stream), 1 if form is IMAGE else 5
    x = 1e-3 * normal(1, 3, frames, 16, 24)
    z = normal(1, pair.config.latent_channels, 1 + frames // 4, 2, 3)
    compare(pair.encoder(form)(x, Stream()), pair.latent(x))
    compare(pair.decoder(form)(z, Stream()), pair.frames(z))


def test_the_epsilon_is_what_builders_take() -> None:
    for form in (VIDEO, IMAGE):
        norms = [m for m in Pair("golden").decoder(form).modules() if isinstance(m, FrameNorm)]
        assert len(norms) == 30
        assert [norm.eps for norm in norms] == pytest.approx([1e-5] * 30, rel=1e-12)


def test_a_weight_that_sixteen_bits_cannot_hold_is_named() -> None:
    weights = loud_weights(OTHER)
    weights["decoder.conv_out.bias"] = torch.full((3,), 1e6)
    with pytest.raises(ModelError, match="weight decoder.conv_out.bias .* float16 cannot hold"):
        fold_decoder(OTHER, weights, VIDEO, torch.float16)

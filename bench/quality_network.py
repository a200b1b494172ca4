"""The network in PyTorch, whole-clip and unfolded, and what is done to it for deployment.

A `Chain` is an encoder, a generator and a decoder; the rows of the table are chains that differ from
the reference in one thing. Everything is on the CPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vr_trt.bench.clip_windows import Pixels
from vr_trt.bench.plain_networks import PlainNetworks
from vr_trt.engines.profiles import FRAMES_PER_LATENT
from vr_trt.export.causal import Stream
from vr_trt.export.fold_generator import fold_generator
from vr_trt.export.fold_vae import fold_decoder, fold_encoder
from vr_trt.export.folded_generator import FoldedGenerator, StaticGenerator
from vr_trt.export.fp8_vae import observe, quantise_coder
from vr_trt.export.models import ModelFiles
from vr_trt.export.vae import VIDEO, Decoder, Encoder
from vr_trt.runtime.latent_windows import Latents, LatentWindows
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.vae_stream import START_FRAMES, START_LATENTS

Coder = Callable[[Tensor], Tensor]  # x [1, 3, F, H, W] to latents [1, C, T, h, w], or back
Generate = Callable[[Tensor, Tensor], Tensor]  # noise, latents [1, C, T, h, w] -> restored


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """One way through the network."""

    encode: Coder
    generate: Generate
    decode: Coder

    @torch.no_grad()
    def run(self, x: Pixels, seed: int = 0) -> Pixels:
        """Frames as a viewer can see them, [1, 3, F, H, W] in -1..1."""
        return self.finish(self.latents(x), seed)

    @torch.no_grad()
    def latents(self, x: Pixels) -> Tensor:
        """The encoded clip."""
        return self.encode(torch.from_numpy(x)).float()

    @torch.no_grad()
    def restored(self, latents: Tensor, seed: int = 0) -> Tensor:
        """Latents restored with the noise of `seed`."""
        return self.generate(noise_like(latents, seed), latents)

    @torch.no_grad()
    def finish(self, latents: Tensor, seed: int = 0) -> Pixels:
        """Restore latents and decode them."""
        frames: Pixels = self.decode(self.restored(latents, seed)).float().clamp(-1, 1).numpy()
        return frames


def noise_like(latents: Tensor, seed: int, start: int = 0) -> Tensor:
    """The runtime's noise for latents [1, C, T, h, w], `start` … of a shot."""
    _, channels, count, height, width = latents.shape
    return torch.from_numpy(window_noise(seed, start, count, (height, width), channels))


def whole_clip(files: ModelFiles) -> Chain:
    """The reference: the checkpoint's own networks in fp32, the clip as one piece."""
    plain = PlainNetworks(files)
    return Chain(encode=plain.encode, generate=plain.restore, decode=plain.decode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """The deployed networks in one precision."""

    encoder: Encoder
    generator: FoldedGenerator
    decoder: Decoder
    dtype: torch.dtype

    def chain(self) -> Chain:
        """The clip as one piece."""
        return Chain(
            encode=lambda x: self.encoder(x.to(self.dtype), Stream()),
            generate=self._generate,
            decode=lambda z: self.decoder(z.to(self.dtype), Stream()),
        )

    def streamed(self) -> Chain:
        """The VAE as the stages `start` and `step` take it: 5 frames, then 4 a call."""
        return replace(
            self.chain(),
            encode=lambda x: _in_steps(self.encoder.forward, x, START_FRAMES, FRAMES_PER_LATENT),
            decode=lambda z: _in_steps(self.decoder.forward, z, START_LATENTS, 1),
        )

    def cut(self) -> Chain:
        """The same, cut by resolution: the fine halves take one frame a call."""
        encoder, decoder = self.encoder, self.decoder
        return replace(
            self.chain(),
            encode=lambda x: _in_steps(
                encoder.coarse, _in_steps(encoder.fine, x, 1, 1), START_FRAMES, FRAMES_PER_LATENT
            ),
            decode=lambda z: _in_steps(
                decoder.fine, _in_steps(decoder.coarse, z, START_LATENTS, 1), 1, 1
            ),
        )

    def windowed(self, window: int, overlap: int, seed: int = 0) -> Chain:
        """The generator in windows of so many latents, blended where they overlap."""

        def restore(start: int, latents: Latents) -> Latents:
            given = torch.from_numpy(latents)
            restored: Latents = self._generate(noise_like(given, seed, start), given).numpy()
            return restored

        def generate(noise: Tensor, latents: Tensor) -> Tensor:
            windows = LatentWindows(window, overlap, restore)
            parts = [*windows.push(latents.numpy()), *windows.finish()]
            return torch.from_numpy(np.concatenate(parts, 2))

        return replace(self.chain(), generate=generate)

    def magnitudes(self, x: Pixels, seed: int = 0) -> dict[str, dict[str, float]]:
        """What E4M3 convolutions of "encoder" and "decoder" are scaled by, from one clip."""
        chain = self.chain()
        seen = chain.restored(chain.latents(x), seed)
        # A cell of 1: also channels that no matrix unit takes, for most of nano's are so.
        return {
            "encoder": observe(self.encoder, [torch.from_numpy(x)], cell=1),
            "decoder": observe(self.decoder, [seen], cell=1),
        }

    def e4m3(self, amax: Mapping[str, Mapping[str, float]]) -> Chain:
        """E4M3 convolutions in the halves of the VAE that `amax` names, emulated."""
        chain = self.chain()
        if "encoder" in amax:
            encoder = quantise_coder(self.encoder, amax["encoder"])
            chain = replace(chain, encode=lambda x: encoder(x, Stream()))
        if "decoder" in amax:
            decoder = quantise_coder(self.decoder, amax["decoder"])
            chain = replace(chain, decode=lambda z: decoder(z, Stream()))
        return chain

    def _generate(self, noise: Tensor, latents: Tensor) -> Tensor:
        _, _, count, height, width = latents.shape
        static = StaticGenerator(self.generator, (count, height // 2, width // 2))
        return static(noise.to(self.dtype), latents.to(self.dtype))


def folded(files: ModelFiles, dtype: torch.dtype = torch.float32) -> Folded:
    """The networks as they are deployed."""
    vae = files.load_vae()
    return Folded(
        encoder=fold_encoder(files.vae, vae, VIDEO, dtype),
        generator=fold_generator(
            files.generator, files.load_generator(), files.load_text(), dtype=dtype
        ),
        decoder=fold_decoder(files.vae, vae, VIDEO, dtype),
        dtype=dtype,
    )


def _in_steps(call: Callable[[Tensor, Stream], Tensor], x: Tensor, start: int, step: int) -> Tensor:
    """A coder, or half of one, over `start` frames or latents and then `step` a call."""
    stream = Stream()
    parts = [call(x[:, :, :start], stream)]
    for at in range(start, x.shape[2], step):
        stream = Stream(stream.next)
        parts.append(call(x[:, :, at : at + step], stream))
    return torch.cat(parts, 2)

"""The plain, unfolded networks in PyTorch on whole clips: the rival, and what is right.

As the published scripts do it: the clip is encoded at once, restored at once, decoded at once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.bench.adapter import Frames
from vr_trt.export.clip import UNIT, pad_frames
from vr_trt.export.colour_fix import Wavelet
from vr_trt.export.diffusion import condition
from vr_trt.export.generator import Generator
from vr_trt.export.models import ModelFiles, find_model_files
from vr_trt.export.vae import VideoVae, split_moments
from vr_trt.runtime.noise import window_noise
from vr_trt.runtime.onnxruntime_session import usable_cores
from vr_trt.runtime.stage_trace import stage_call

TIMESTEP = 1000.0


class PlainNetworks:
    """VAE and generator of a model, as trained."""

    def __init__(
        self, files: ModelFiles, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Read the weights; ModelError where they are not here."""
        self._device, self._dtype = torch.device(device), dtype
        self.vae = self._filled(VideoVae(files.vae), dict(files.load_vae()))
        self.generator = self._filled(Generator(files.generator), dict(files.load_generator()))
        self.scaling, self.detail = files.vae.scaling, files.detail
        self._text = files.load_text().to(self._device, dtype)

    def _filled(self, network: Any, weights: dict[str, Tensor]) -> Any:
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return network.to(self._device, self._dtype).eval().requires_grad_(False)

    def on_device(self, x: Tensor) -> Tensor:
        """`x` where the networks are, in their precision."""
        return x.to(self._device, self._dtype)

    def encode(self, x: Tensor) -> Tensor:
        """A clip [1, 3, 4n+1, H, W] in -1..1 to scaled latents [1, C, n+1, h, w]."""
        return split_moments(self.vae.encode(x))[0] * self.scaling

    def restore(self, noise: Tensor, latent: Tensor) -> Tensor:
        """Noise and latents [1, C, T, h, w] to restored latents, in one step."""
        start, given = (side[0].permute(1, 2, 3, 0) for side in (noise, latent))
        timestep = torch.tensor(TIMESTEP, device=self._device)
        video = torch.cat([start, condition(given, None, 0.0)], -1)
        velocity = self.generator(video, self._text, timestep)
        return (start - velocity).permute(3, 0, 1, 2)[None]

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latents [1, C, n+1, h, w] to a clip [1, 3, 4n+1, H, W]."""
        return self.vae.decode(latent / self.scaling)


class TorchWay:
    """The rival of `--against torch` and, `compiled`, of `torch-compile`: a clip at once."""

    def __init__(self, model: str, *, compiled: bool = False) -> None:
        self._model, self._compiled = model, compiled

    def load(self) -> None:
        """Read the weights; on a GPU if PyTorch sees one."""
        torch.set_num_threads(usable_cores())
        gpu = torch.cuda.is_available()
        self._networks = networks = PlainNetworks(
            find_model_files(self._model),
            device="cuda" if gpu else "cpu",
            dtype=torch.bfloat16 if gpu else torch.float32,
        )
        if self._compiled:
            networks.vae.encoder.compile()
            networks.vae.decoder.compile()
            networks.generator.compile()
        self._wavelet = Wavelet(networks.detail).to(networks.on_device(torch.empty(0)).device)

    def restore(self, frames: Frames) -> Frames:
        """Frames [F, H, W, 3], restored, colours corrected as `vr-trt run` does."""
        with torch.inference_mode():
            return self._restored(torch.from_numpy(frames))

    def _restored(self, frames: Tensor) -> Frames:
        count, height, width, _ = frames.shape
        pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        sides = (0, -width % UNIT, 0, -height % UNIT)
        padded = pad_frames(F.pad(pixels, sides, mode="replicate"))
        x = self._networks.on_device(padded.transpose(0, 1)[None])
        with stage_call("encode"):
            latent = self._networks.encode(x)
        with stage_call("generator"):
            _, channels, T, h, w = latent.shape
            noise = torch.from_numpy(window_noise(0, 0, T, (h, w), channels))
            restored = self._networks.restore(self._networks.on_device(noise), latent)
        with stage_call("decode"):
            out = self._networks.decode(restored)
        with stage_call("colour"):
            kept = [
                side[0, :, :count, :height, :width].transpose(0, 1).float() for side in (out, x)
            ]
            levels = (self._wavelet(*kept).clamp(-1, 1) + 1) * 127.5
            done: Frames = levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return np.ascontiguousarray(done)

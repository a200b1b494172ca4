"""The generator once more, as the specification's sentences have it: loops, float64, no batching.

Shares nothing with the package but the list of windows, which has its own golden file. It is the
judge where no golden vector is: other widths, heads, sharing, prompts and timesteps.
"""

from collections.abc import Mapping
from math import log, pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from vr_trt.export.config import GeneratorConfig
from vr_trt.kernels.windows import partition

Pair = tuple[Tensor, Tensor]  # video and text


class Book:
    """One network; `predict` is its forward."""

    def __init__(self, config: GeneratorConfig, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self.w = {name: value.double() for name, value in weights.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def rms(self, x: Tensor, weight: Tensor | float = 1.0) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.norm_eps).sqrt() * weight

    def embed(self, timestep: float) -> Tensor:
        angles = timestep * torch.exp(-log(10000) * torch.arange(128).double() / 128)
        x = torch.cat([angles.sin(), angles.cos()])
        x = F.silu(self.linear("emb_in.proj_in", x))
        x = F.silu(self.linear("emb_in.proj_hid", x))
        return self.linear("emb_in.proj_out", x)

    def tag(self, layer: int, modality: str) -> str:
        return "all" if layer >= self.config.shared_from else modality

    def turn(self, x: Tensor, angles: list[float]) -> Tensor:
        """Rotate the pairs (2j, 2j + 1) of [heads, D] by as many angles as there are."""
        out = x.clone()
        for j, angle in enumerate(angles):
            c, s = torch.tensor(angle).double().cos(), torch.tensor(angle).double().sin()
            out[:, 2 * j] = x[:, 2 * j] * c - x[:, 2 * j + 1] * s
            out[:, 2 * j + 1] = x[:, 2 * j + 1] * c + x[:, 2 * j] * s
        return out

    def angles(
        self, at: tuple[int, int, int], shape: tuple[int, int, int], text: int
    ) -> list[float]:
        """Of the token `at` (t, h, w) of a window of `shape`."""
        width = self.config.head_width
        if self.config.rope == "language":
            dim = width // 3
            freqs = [10000.0 ** (-2 * j / dim) for j in range(dim // 2)]
            places = [float(text + at[0]), float(at[1]), float(at[2])]
        else:
            freqs = [pi * f for f in torch.linspace(1, 128, width // 2 // 3 // 2).tolist()]
            places = [
                -1 + 2 * i / (n - 1) if n > 1 else -1.0 for i, n in zip(at, shape, strict=True)
            ]
        return [place * f for place in places for f in freqs]

    def text_angles(self, n: int) -> list[float]:
        if self.config.rope == "pixel":
            return []
        dim = self.config.head_width // 3
        return [n * 10000.0 ** (-2 * j / dim) for j in range(dim // 2)] * 3

    def heads(self, layer: int, modality: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tag, c = self.tag(layer, modality), self.config
        qkv = self.linear(f"blocks.{layer}.attn.proj_qkv.{tag}", x)
        q, k, v = qkv.view(len(x), 3, c.heads, c.head_width).unbind(1)
        norm = [self.w[f"blocks.{layer}.attn.norm_{which}.{tag}.weight"] for which in "qk"]
        return self.rms(q, norm[0]), self.rms(k, norm[1]), v

    def attention(self, layer: int, grid: tuple[int, int, int], x: Tensor, y: Tensor) -> Pair:
        """Window after window, head after head, token after token's rotation."""
        q, k, v = self.heads(layer, "vid", x)
        tq, tk, tv = self.heads(layer, "txt", y)
        tq = torch.stack([self.turn(row, self.text_angles(n)) for n, row in enumerate(tq)])
        tk = torch.stack([self.turn(row, self.text_angles(n)) for n, row in enumerate(tk)])
        out, texts = torch.zeros_like(q), []
        for (t0, t1), (h0, h1), (w0, w1) in partition(grid, shifted=layer % 2 == 1):
            shape = (t1 - t0, h1 - h0, w1 - w0)
            local = [
                (t, h, w) for t in range(shape[0]) for h in range(shape[1]) for w in range(shape[2])
            ]
            tokens = [((t0 + t) * grid[1] + h0 + h) * grid[2] + w0 + w for t, h, w in local]
            turns = [self.angles(at, shape, len(y)) for at in local]
            qs = [self.turn(q[n], a) for n, a in zip(tokens, turns, strict=True)]
            ks = [self.turn(k[n], a) for n, a in zip(tokens, turns, strict=True)]
            queries = torch.cat([torch.stack(qs), tq]).transpose(0, 1)
            keys = torch.cat([torch.stack(ks), tk]).transpose(0, 1)
            scores = queries @ keys.transpose(1, 2) / sqrt(self.config.head_width)
            values = torch.cat([v[tokens], tv]).transpose(0, 1)
            result = (scores.softmax(-1) @ values).transpose(0, 1)
            out[tokens] = result[: len(tokens)]
            texts.append(result[len(tokens) :])
        text = torch.stack(texts).mean(0)
        return (
            self.linear(f"blocks.{layer}.attn.proj_out.{self.tag(layer, 'vid')}", out.flatten(1)),
            self.linear(f"blocks.{layer}.attn.proj_out.{self.tag(layer, 'txt')}", text.flatten(1)),
        )

    def mlp(self, layer: int, modality: str, x: Tensor) -> Tensor:
        name = f"blocks.{layer}.mlp.{self.tag(layer, modality)}"
        if self.config.mlp == "gelu":
            hidden = F.gelu(self.linear(f"{name}.proj_in", x), approximate="tanh")
        else:
            gate = F.silu(self.linear(f"{name}.proj_in_gate", x))
            hidden = gate * self.linear(f"{name}.proj_in", x)
        return self.linear(f"{name}.proj_out", hidden)

    def block(
        self, layer: int, grid: tuple[int, int, int], x: Tensor, y: Tensor, emb: Tensor
    ) -> Pair:
        def by(modality: str, part: str, which: str) -> Tensor:
            slot = 3 * (part == "mlp") + ("shift", "scale", "gate").index(which)
            learned = self.w[f"blocks.{layer}.ada.{self.tag(layer, modality)}.{part}_{which}"]
            return emb[slot::6] + learned

        def entry(modality: str, part: str, z: Tensor) -> Tensor:
            return self.rms(z) * by(modality, part, "scale") + by(modality, part, "shift")

        ends = layer == self.config.layers - 1 and not self.config.last_block_text
        text = self.rms(y) if ends else entry("txt", "attn", y)
        attended, attended_text = self.attention(layer, grid, entry("vid", "attn", x), text)
        x = x + attended * by("vid", "attn", "gate")
        x = x + self.mlp(layer, "vid", entry("vid", "mlp", x)) * by("vid", "mlp", "gate")
        if ends:
            return x, y
        y = y + attended_text * by("txt", "attn", "gate")
        return x, y + self.mlp(layer, "txt", entry("txt", "mlp", y)) * by("txt", "mlp", "gate")

    def predict(self, video: Tensor, text: Tensor, timestep: float) -> Tensor:
        """v [T * h * w, 16] of video [T, h, w, 33]."""
        T, h, w, _ = video.shape
        grid, video = (T, h // 2, w // 2), video.double()
        patches = [
            torch.cat([video[t, 2 * i + di, 2 * j + dj] for di in (0, 1) for dj in (0, 1)])
            for t in range(T) for i in range(h // 2) for j in range(w // 2)
        ]  # fmt: skip
        x = self.linear("vid_in.proj", torch.stack(patches))
        y = self.linear("txt_in", text.double())
        emb = self.embed(timestep)
        for layer in range(self.config.layers):
            x, y = self.block(layer, grid, x, y, emb)
        if self.config.output_norm:
            x = self.rms(x, self.w["vid_out_norm.weight"])
            x = x * (emb[1::6] + self.w["vid_out_ada.out_scale"])
            x = x + emb[0::6] + self.w["vid_out_ada.out_shift"]
        x = self.linear("vid_out.proj", x)
        out = torch.zeros(T, h, w, self.config.vid_out_channels).double()
        for n, patch in enumerate(x):
            (t, i), j = divmod(n // grid[2], grid[1]), n % grid[2]
            for d, pixel in enumerate(patch.view(4, -1)):
                out[t, 2 * i + d // 2, 2 * j + d % 2] = pixel
        return out.flatten(0, 2)

"""What each row of the quality table must reach, and why so much.

A row is the PSNR in dB of the frames, over their full range, against the fp32 whole-clip unfolded
network on the same clip with the same noise. 100 dB stands for no difference.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The least that a row must reach, in every frame.

    All frames together must be nearer to the reference than those of another seed of the noise.
    """

    row: str
    what: str  # is done to the network
    least: float  # dB of the worst frame
    why: str


EXACT = "the same arithmetic in another order: only the rounding of fp32 may show"
BARS = (
    Bar(
        row="folding",
        what="modulation, prompt, sampler, scaling and sub-pixel upsampling folded in",
        least=90,
        why=EXACT,
    ),
    Bar(
        row="streamed VAE",
        what="start and step stages that carry the causal state, in place of spatial tiles",
        least=90,
        why=EXACT,
    ),
    Bar(
        row="cut VAE",
        what="the VAE cut by resolution, fine halves a frame a call, in place of spatial tiles",
        least=90,
        why=EXACT,
    ),
    Bar(
        row="shipped graphs",
        what="the package's graphs in ONNX Runtime: streamed, cut, weights stored in fp16",
        least=60,
        why="weights lose 13 of 24 binary digits, activations none; 8-bit output alone is 59 dB",
    ),
    Bar(
        row="fp16",
        what="exported graphs in fp16, in ONNX Runtime",
        least=54,
        why="about the noise of 8-bit output (59 dB), with room for other weights",
    ),
    Bar(
        row="bf16",
        what="folded networks in bf16, in PyTorch",
        least=40,
        why="eight binary digits: a per cent or two of nano's latents (docs/precision.md)",
    ),
    Bar(
        row="fp8 generator",
        what="fp16 with the generator's linears in E4M3, in ONNX Runtime",
        least=48,
        why="the aim of the fp8 gate (engines/gate.py)",
    ),
    Bar(
        row="fp8 encoder",
        what="E4M3 convolutions in the encoder's blocks, emulated in PyTorch",
        least=42,
        why="as of the decoder",
    ),
    Bar(
        row="fp8 decoder",
        what="E4M3 convolutions in the decoder's blocks, emulated in PyTorch",
        least=42,
        why="its gate asks that it be nearer than another seed, which is 46 dB and more; a single "
        "frame may be some dB further, for its scales are of another clip",
    ),
    Bar(
        row="windows",
        what="generator windows of the profile's length, blended in latent space",
        least=40,
        why="a frame near the end of a window sees less of the film, and a sharper network shows more "
        "of that; pooled they are nearer than another seed, and joins have a bar of their own",
    ),
    Bar(
        row="as it runs",
        what="the package's graphs with the profile's windows, a shot of several hundred frames",
        least=40,
        why="that of the windows, for the graphs add nothing that counts",
    ),
    Bar(
        row="taken up",
        what="the same begun in the middle, as --resume and stretches of a shot do",
        least=48,
        why="that of the windows; besides, it must equal the undisturbed run to the last bit",
    ),
    Bar(
        row="segments",
        what="the same through a file of several segments: 10 bits, 4:4:4, lossless, read back",
        least=40,
        why="that of the windows; 10-bit codes with dither alone are about 66 dB",
    ),
)
BY_ROW = {bar.row: bar for bar in BARS}
# The picture's change at joins over that inside of windows differs from 1, and from what it is in the
# whole clip, by no more: a join must not be seen.
JUMP = 0.10

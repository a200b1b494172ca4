"""What each stage of the `triton` backend holds on a card, as a table of two numbers a count.

    python -m vr_trt.bench.triton_memory > engines/triton_memory.toml

No GPU is needed and no weights: stages of the true networks are laid out as shapes at two sizes, and
a line is drawn through both. `engines/triton_law.py` reads the table, so that a run knows without
PyTorch what is not built yet; a test lays out other sizes and holds the table to them.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from vr_trt.engines.cache import Canvas
from vr_trt.engines.cards import wide_canvas
from vr_trt.engines.memory_law import NETWORKS, Network
from vr_trt.engines.profiles import find_profile
from vr_trt.engines.selection import needed_stages
from vr_trt.engines.triton_card import CardBytes
from vr_trt.engines.triton_law import COUNTS, find_key, units
from vr_trt.engines.triton_memory import card_bytes
from vr_trt.engines.triton_plan import DTYPES, TritonPlan
from vr_trt.engines.triton_stages import empty_coder, empty_generator, lay_out
from vr_trt.export.fp8_network import block_linears
from vr_trt.export.fp8_vae import fp8_layers
from vr_trt.export.vae import STREAM

CHIP = 90
BETWEEN = ("540p", "2160p")  # the sizes that a line goes through
FRAMES = {"start": (5, 2), "step": (4, 1), "image": (1, 1)}  # of x, and latents
LARGEST = 7.0  # of an input in E4M3: any


def stage_bytes(
    network: Network, stage: str, canvas: Canvas, *, fp8: bool, chip: int = CHIP
) -> CardBytes:
    """Of a stage with all layers in E4M3 that may be, or none."""
    make = _generator if stage.startswith("generator") else _coder
    return card_bytes(lay_out(make(network, stage, canvas, fp8), chip))


def _coder(network: Network, stage: str, canvas: Canvas, fp8: bool) -> TritonPlan:
    verb, call = stage.split("_")
    frames, latents = FRAMES[call]
    latents *= canvas.step if call == "step" else 1
    x = (1, network.vae.image_channels, frames, canvas.height, canvas.width)
    latent = (1, network.vae.latent_channels, latents, canvas.height // 8, canvas.width // 8)
    plan = TritonPlan(
        stage=stage, config=network.vae, precision="bf16",
        sizes=x if verb == "encode" else latent, state={}, stream=STREAM,
    )  # fmt: skip
    coder = empty_coder(plan).bfloat16()
    names = fp8_layers(coder) if fp8 and call != "image" else ()  # as the gate has it
    return replace(plan, state=coder.state_dict(), amax=dict.fromkeys(names, LARGEST))


def _generator(network: Network, stage: str, canvas: Canvas, fp8: bool) -> TritonPlan:
    config, latents = network.generator, 1 if stage == "generator_image" else canvas.latents
    sizes = (1, config.latent_channels, latents, canvas.height // 8, canvas.width // 8)
    text = torch.empty(network.text_tokens, config.width, device="meta")
    plan = TritonPlan(
        stage=stage, config=config, precision="fp8" if fp8 else "bf16", sizes=sizes,
        state={"text": text},
    )  # fmt: skip
    folded = empty_generator(plan).to(DTYPES[plan.precision])
    state = dict(folded.state_dict())
    for name, linear in block_linears(folded).items() if fp8 else ():
        outputs = len(linear.weight)
        state[f"{name}.weight"] = linear.weight.to(torch.float8_e4m3fn)
        state[f"{name}.weight_scale"] = torch.empty(outputs, device="meta")
        state[f"{name}.bias"] = torch.empty(outputs, device="meta")
        state[f"{name}.input_scales"] = torch.empty(2, device="meta")
    return replace(plan, state=state)


def rows() -> Iterator[tuple[str, str, bool, dict[str, tuple[int, float]]]]:
    """Key of the network, stage, whether in E4M3, and for each count what is fixed and what grows."""
    small, large = (wide_canvas(find_profile(name)) for name in BETWEEN)
    seen = set[tuple[str, str]]()
    for model, network in NETWORKS.items():
        for stage in needed_stages(cut=False):
            key = find_key(model, stage)
            if (key, stage) in seen:
                continue
            seen.add((key, stage))
            for fp8 in (False, True):
                few, many = (
                    asdict(stage_bytes(network, stage, canvas, fp8=fp8))
                    for canvas in (small, large)
                )
                start, steps = units(stage, small), units(stage, large) - units(stage, small)
                each = {count: (many[count] - few[count]) / steps for count in COUNTS}
                yield (
                    key,
                    stage,
                    fp8,
                    {
                        count: (round(few[count] - each[count] * start), each[count])
                        for count in COUNTS
                    },
                )


def main() -> None:
    """The command."""
    print(
        f"# By python -m vr_trt.bench.triton_memory, for sm_{CHIP}: [bytes, bytes for each unit]."
    )
    print("# Units are pixels with their border, of generators tokens. See engines/triton_law.py.")
    for key, stage, fp8, counts in rows():
        print(f'\n[[row]]\nnetwork = "{key}"\nstage = "{stage}"\nfp8 = {str(fp8).lower()}')
        for count, (fixed, each) in counts.items():
            print(f"{count} = [{fixed}, {each:.6g}]")


if __name__ == "__main__":
    main()

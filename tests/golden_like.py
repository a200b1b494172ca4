"""A folder laid out as the golden one, of other networks, sizes, prompts, timesteps and names.

Generators' outputs come from `generator_by_the_book`; the rest from the networks themselves.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.generator_by_the_book import Book
from tests.networks import loud_weights, make_generator, make_vae, normal
from torch import Tensor

from vr_trt.export.config import generator_from_reference, vae_from_reference
from vr_trt.export.diffusion import Sampling, condition, sample
from vr_trt.export.vae import split_moments
from vr_trt.kernels.windows import partition

Size = tuple[int, int, int]


def params_3b(**sizes: int) -> dict[str, Any]:
    """The reference's arguments of a 3B-style generator; `sizes` as it names them."""
    fixed = {"vid_out_norm": "fusedrms", "mlp_type": "swiglu", "rope_type": "mmrope3d"}
    return _params(sizes) | fixed | {"rope_dim": sizes["head_dim"]}


def params_7b(**sizes: int) -> dict[str, Any]:
    """The same of a 7B-style generator."""
    return _params(sizes) | {"mlp_type": "normal", "qk_rope": True, "shared_mlp": False}


def _params(sizes: dict[str, int]) -> dict[str, Any]:
    methods = ["720pwin_by_size_bysize", "720pswin_by_size_bysize"]
    layers, width = sizes["num_layers"], sizes["vid_dim"]
    common = {
        "vid_in_channels": 33, "vid_out_channels": 16, "txt_dim": width, "emb_dim": 6 * width,
        "expand_ratio": 4, "norm_eps": 1e-5, "patch_size": [1, 2, 2], "qk_bias": False,
    }  # fmt: skip
    windows = {"window": [[4, 3, 3]] * layers}
    windows["window_method"] = [methods[i % 2] for i in range(layers)]  # type: ignore[misc]
    return common | sizes | windows


GENERATORS = {
    "five.blocks": params_3b(
        vid_dim=36, txt_in_dim=10, heads=3, head_dim=20, num_layers=5, mm_layers=5
    ),
    "a": params_3b(vid_dim=24, txt_in_dim=11, heads=1, head_dim=64, num_layers=2, mm_layers=0),
    "b-7": params_7b(vid_dim=40, txt_in_dim=9, heads=5, head_dim=26, num_layers=3)
    | {"expand_ratio": 3, "norm_eps": 1e-3},
}
CASES: dict[str, tuple[Size, int, float]] = {  # latent size, text tokens, timestep
    "dot": ((1, 2, 2), 1, 1000.0),
    "some clip": ((5, 8, 6), 77, 3.5),
    "strip": ((1, 2, 48), 4, 999.0),
}
INSIDE = ("dot", "some clip")  # with intermediates
VAE_PARAMS = {
    "block_out_channels": [6, 3, 9, 12],
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 3,
}
VAE_CASES: dict[str, Size] = {"picture": (1, 8, 24), "nine": (9, 24, 8)}
GRIDS: list[Size] = [(1, 1, 1), (11, 47, 3), (3, 90, 91)]


def write_golden_like(folder: Path) -> Path:
    """Fill `folder` with every kind of file; its path."""
    _generators(folder)
    _vaes(folder)
    _pipeline(folder)
    _lists(folder)
    return folder


def _json(path: Path, contents: object) -> None:
    path.write_text(json.dumps(contents))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(
        {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        },
        path,
    )


def _generators(folder: Path) -> None:
    for name, ((T, h, w), tokens, at) in CASES.items():
        shapes = torch.tensor([[T, h, w]]), torch.tensor([[tokens]])
        given = {"vid": normal(T * h * w, 33).bfloat16(), "timestep": torch.tensor([at])}
        given |= {"vid_shape": shapes[0], "txt_shape": shapes[1]}
        for name_of_config, params in GENERATORS.items():
            width = params["txt_in_dim"]
            text = normal(tokens, width, seed=1).bfloat16()
            _save(given | {"txt": text}, folder / f"dit_input_{name}.{name_of_config}.safetensors")
    listed: dict[str, Any] = {"configs": {}}
    for name, params in GENERATORS.items():
        mine = [f"{case}.{name}" for case in CASES]
        listed["configs"][name] = {"params": params, "cases": mine}
        _outputs(folder, name, params)
    _json(folder / "dit_cases.json", listed)


def _outputs(folder: Path, name: str, params: dict[str, Any]) -> None:
    config = generator_from_reference(params)
    weights = loud_weights(config)
    _save(weights, folder / f"dit_{name}_weights.safetensors")
    book, out = Book(config, weights), {}
    for case, ((T, h, w), tokens, at) in CASES.items():
        video = normal(T * h * w, 33).bfloat16().float().view(T, h, w, 33)
        text = normal(tokens, config.text_width, seed=1).bfloat16().float()
        out[f"{case}.{name}.out"] = book.predict(video, text, at).float()
        out[f"{case}.{name}.out_attn_bf16"] = torch.zeros(1)  # of another arithmetic: no case
        if case in INSIDE:
            x = book.linear("txt_in", text.double()).float()
            inside = {"txt_in": x, "emb_in": book.embed(at)[None].float()}
            path = folder / f"dit_{name}_{case}.{name}_intermediates.safetensors"
            _save(inside | {"out": out[f"{case}.{name}.out"]}, path)
    _save(out, folder / f"dit_{name}_out.safetensors")


def _vaes(folder: Path) -> None:
    config = vae_from_reference(VAE_PARAMS)
    for seed, name in enumerate(("vae_one", "vae_other.set")):
        weights = loud_weights(config, seed)
        _save(weights, folder / f"{name}_weights.safetensors")
        network = make_vae(config, weights)
        tensors: dict[str, Tensor] = {}
        for case, (frames, height, width) in VAE_CASES.items():
            x = normal(1, 3, frames, height, width).bfloat16()
            z = normal(1, 16, (frames + 3) // 4, height // 8, width // 8).bfloat16()
            moments = network.encode(x.float())
            mean, logvar = split_moments(moments)
            made = {"x": x, "z": z, "moments": moments, "mean": mean, "logvar": logvar}
            made["dec"] = network.decode(z.float())
            tensors |= {f"{case}.{key}": value for key, value in made.items()}
        _save(tensors, folder / f"{name}_cases.safetensors")
    listed = {"params": VAE_PARAMS, "cases": {case: {} for case in VAE_CASES}}
    _json(folder / "vae_cases.json", listed)


def _pipeline(folder: Path) -> None:
    config = generator_from_reference(GENERATORS["a"])
    vae_config = vae_from_reference(VAE_PARAMS)
    generator = make_generator(config, loud_weights(config))
    vae = make_vae(vae_config, loud_weights(vae_config))
    x = normal(3, 1, 32, 48)
    latent = split_moments(vae.encode(x[None]))[0][0].permute(1, 2, 3, 0) * 0.7
    text = normal(6, 11), normal(3, 11, seed=2)
    noise, more = normal(*latent.shape, seed=3), normal(*latent.shape, seed=4)
    tensors = {"vae_in_cthw": x, "latent_mode_thwc": latent, "noise": noise, "aug_noise": more}
    tensors |= {"txt": text[0], "txt_neg": text[1]}
    for level in (0.0, 0.3):
        start = condition(latent, more, level)
        restored = sample(generator, noise, start, text, Sampling(condition_noise=level))
        tensors |= {f"cns{level}.cond": start, f"cns{level}.x0": restored}
        tensors[f"cns{level}.decoded_cthw"] = vae.decode(restored.permute(3, 0, 1, 2)[None] / 0.7)[
            0
        ]
    many = Sampling(steps=3, guidance=2.0, condition_noise=0.1)
    restored = sample(generator, noise, condition(latent, more, 0.1), text, many)
    decoded = vae.decode(restored.permute(3, 0, 1, 2)[None] / 0.7)[0]
    _save(tensors | {"ms3_cfg2.0.decoded_cthw": decoded}, folder / "pipe_mine.safetensors")
    sizes = {"res_h": 32, "res_w": 48, "scaling_factor": 0.7}
    _json(folder / "pipe_cases.json", sizes | {"dit": "a weights", "vae": "vae_one weights"})


def _lists(folder: Path) -> None:
    config = generator_from_reference(GENERATORS["five.blocks"])
    keys = {name: list(value.shape) for name, value in loud_weights(config).items()}
    _json(folder / "keys_mine.json", {"params": GENERATORS["five.blocks"], "keys": keys})
    cases = []
    for grid in GRIDS:
        lists = {"720pwin_by_size_bysize": partition(grid, False)}
        lists["720pswin_by_size_bysize"] = partition(grid, True)
        cases.append({"size": grid, **lists})
    _json(folder / "windows.json", {"num_windows": [4, 3, 3], "cases": cases})

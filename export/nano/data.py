"""Sharp training clips: photographs that ship inside our dependencies, texture, text and gradients.

Every clip is a picture seen by a moving camera, often with a second picture moving in front of it.
All of it is a function of the random generator that is passed in, so a seed gives the same clips
again on every machine with the same versions.
"""

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator as Rng
from numpy.typing import NDArray

Split = Literal["train", "held-out"]
Clip = NDArray[np.uint8]  # [T, H, W, 3]

# Names of scikit-image's functions for pictures that need no download; grey ones are tripled.
_SKIMAGE = {
    "train": [
        "astronaut",
        "brick",
        "camera",
        "chelsea",
        "coins",
        "grass",
        "gravel",
        "hubble_deep_field",
        "immunohistochemistry",
        "moon",
        "page",
        "retina",
        "rocket",
        "text",
    ],
    "held-out": ["coffee"],
}
_FILES = {
    "train": [
        ("sklearn", "datasets/images/china.jpg"),
        ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ],
    "held-out": [("sklearn", "datasets/images/flower.jpg")],
}
# Portraits and streets teach more than microscopy or gravel: how often each picture is drawn.
_FAVOURITES = {"astronaut": 4, "chelsea": 4, "rocket": 2, "china": 5, "grace_hopper": 4}


@cache
def photographs(split: Split) -> dict[str, Clip]:
    """The photographs of one split by name, each uint8 [H, W, 3]; no picture is in both."""
    import skimage.data
    from PIL import Image

    pictures: dict[str, Clip] = {}
    for name in _SKIMAGE[split]:
        picture = getattr(skimage.data, name)()
        pictures[name] = picture if picture.ndim == 3 else np.stack([picture] * 3, -1)
    for package, file in _FILES[split]:
        with Image.open(_package_folder(package) / file) as image:
            pictures[Path(file).stem] = np.asarray(image.convert("RGB"))
    return {name: np.ascontiguousarray(picture) for name, picture in pictures.items()}


def _package_folder(package: str) -> Path:
    """Where a package is installed, without the seconds that importing it would take."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; run `make test` once to get it")
    return Path(spec.origin).parent


def noise_texture(rng: Rng, height: int, width: int) -> torch.Tensor:  # [3, H, W] in 0..1
    """Smooth noise of several octaves, each colour its own mix of three layers."""
    layers = torch.zeros(3, height, width)
    fall = rng.uniform(0.35, 0.8)
    for octave in range(2, 7):
        cells = 2**octave
        grid = torch.from_numpy(rng.standard_normal((1, 3, cells, cells), dtype=np.float32))
        fine = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        layers += fine[0] * fall ** (octave - 2)
    mix = torch.from_numpy(rng.uniform(-1, 1, (3, 3)).astype(np.float32))
    colour = torch.einsum("ck,khw->chw", mix, layers) * float(rng.uniform(0.5, 2.0))
    return torch.sigmoid(colour)


def _ramp(rng: Rng, height: int, width: int) -> torch.Tensor:  # [H, W], about -0.5..0.5
    angle = rng.uniform(0, 2 * math.pi)
    y = torch.linspace(-0.5, 0.5, height)[:, None]
    x = torch.linspace(-0.5, 0.5, width)[None, :]
    return y * math.sin(angle) + x * math.cos(angle)


def _two_colours(rng: Rng, share: torch.Tensor) -> torch.Tensor:  # [H, W] in 0..1 -> [3, H, W]
    colours = torch.from_numpy(rng.uniform(0, 1, (2, 3, 1, 1)).astype(np.float32))
    return colours[0] * share + colours[1] * (1 - share)


def gradient(rng: Rng, height: int, width: int) -> torch.Tensor:  # [3, H, W] in 0..1
    """A smooth ramp between two colours in a random direction."""
    return _two_colours(rng, _ramp(rng, height, width) + 0.5).clamp(0, 1)


def stripes(rng: Rng, height: int, width: int) -> torch.Tensor:  # [3, H, W] in 0..1
    """Stripes, or checkers where two sets of stripes meet, soft or hard at the edge."""
    count = rng.uniform(6, 40)
    wave = torch.sin(2 * math.pi * count * _ramp(rng, height, width))
    if rng.random() < 0.5:
        wave = wave * torch.sin(2 * math.pi * count * _ramp(rng, height, width))
    return _two_colours(rng, torch.sigmoid(wave * rng.uniform(1, 12)))


def text_page(rng: Rng, height: int, width: int) -> torch.Tensor:  # [3, H, W] in 0..1
    """Lines of random letters in matplotlib's own font, dark on light or light on dark."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:!?"))
    font = FontProperties(family="DejaVu Sans", weight=str(rng.choice(["normal", "bold"])))
    ink = torch.zeros(height, width)
    top = 4.0
    while top < height - 8:
        size = rng.uniform(10, 34)
        line = "".join(rng.choice(letters, max(2, int(width / size * 1.6))))
        path = TextPath((3, 0), line, size=size, prop=font)
        ink = torch.maximum(ink, _fill(path.to_polygons(), top + size, height, width))
        top += size * 1.4
    return _two_colours(rng, ink)


def _fill(
    polygons: list[Any], base: float, height: int, width: int
) -> torch.Tensor:  # [H, W] in 0..1
    """Even-odd fill of letter outlines, drawn twice as large and averaged for soft edges."""
    from skimage.draw import polygon as fill

    large = np.zeros((2 * height, 2 * width), dtype=bool)
    for outline in polygons:
        rows, columns = fill(2 * (base - outline[:, 1]), 2 * outline[:, 0], large.shape)
        large[rows, columns] ^= True
    return F.avg_pool2d(torch.from_numpy(large.astype(np.float32))[None], 2)[0]


def photograph(
    rng: Rng, split: Split, height: int, width: int
) -> torch.Tensor:  # [3, H, W] in 0..1
    """A random part of a photograph at a random scale (0.6 to 2 of its pixels to one of ours)."""
    pictures = photographs(split)
    names = list(pictures)
    weights = np.array([_FAVOURITES.get(name, 1) for name in names], dtype=np.float64)
    picture = pictures[names[int(rng.choice(len(names), p=weights / weights.sum()))]]
    limit = min(picture.shape[0] / height, picture.shape[1] / width)
    scale = min(limit, math.exp(rng.uniform(math.log(0.6), math.log(2.0))))
    rows, columns = int(height * scale), int(width * scale)
    top = int(rng.integers(0, picture.shape[0] - rows + 1))
    left = int(rng.integers(0, picture.shape[1] - columns + 1))
    part = torch.from_numpy(picture[top : top + rows, left : left + columns, :3].copy())
    part = part.permute(2, 0, 1)[None].float() / 255
    part = F.interpolate(part, (height, width), mode="bicubic", antialias=True)[0].clamp(0, 1)
    return _recolour(rng, part)


def _recolour(rng: Rng, picture: torch.Tensor) -> torch.Tensor:
    """Other light on the same picture: gamma, gain, and now and then swapped colours."""
    if rng.random() < 0.25:
        picture = picture[torch.from_numpy(rng.permutation(3))]
    return (picture ** rng.uniform(0.75, 1.35) * rng.uniform(0.8, 1.1)).clamp(0, 1)


def _picture(rng: Rng, split: Split, height: int, width: int) -> torch.Tensor:
    choice = rng.random()
    if choice < 0.72:
        return photograph(rng, split, height, width)
    if choice < 0.80:
        return text_page(rng, height, width)
    if choice < 0.88:
        return noise_texture(rng, height, width)
    if choice < 0.94:
        return stripes(rng, height, width)
    return gradient(rng, height, width)


def _camera(rng: Rng, frames: int, speed: float) -> torch.Tensor:  # [T, 2, 3], in canvas units
    """Affine views along a smooth path: pan, zoom and rotation that drift at a constant pace."""
    time = np.arange(frames) - (frames - 1) / 2
    pan = rng.normal(0, speed, 2)
    angle = rng.normal(0, 0.004) * time + rng.normal(0, 0.05)
    zoom = np.exp(rng.normal(0, 0.004) * time)
    shake = rng.normal(0, 0.15 * speed, (2, frames)) * (rng.random() < 0.3)
    views = np.zeros((frames, 2, 3), dtype=np.float32)
    views[:, 0, 0] = views[:, 1, 1] = zoom * np.cos(angle)
    views[:, 1, 0] = zoom * np.sin(angle)
    views[:, 0, 1] = -views[:, 1, 0]
    views[:, :, 2] = (pan[:, None] * time + shake).T
    return torch.from_numpy(views)


def film(picture: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    """[T, C, size, size]: a square picture seen through `views` [T, 2, 3].

    At scale one the frame is the middle of the picture.
    """
    share = size / picture.shape[-1]
    views = views.clone()
    views[:, :, :2] *= share
    views[:, :, 2] *= 2 / picture.shape[-1]  # pixels to the sampler's -1..1
    frames = len(views)
    grid = F.affine_grid(views, [frames, 1, size, size], align_corners=False)
    many = picture[None].expand(frames, -1, -1, -1)
    return F.grid_sample(many, grid, mode="bicubic", padding_mode="reflection", align_corners=False)


def make_clip(rng: Rng, split: Split, frames: int, size: int) -> Clip:
    """One sharp clip uint8 [T, size, size, 3] of a moving camera over a random picture."""
    canvas = size + size // 2
    still = rng.random() < 0.15
    speed = 0.0 if still else math.exp(rng.uniform(math.log(0.1), math.log(3.0)))
    scene = film(_picture(rng, split, canvas, canvas), _camera(rng, frames, speed), size)
    if rng.random() < 0.4:
        front = _picture(rng, split, canvas, canvas)
        blob = F.interpolate(
            torch.from_numpy(rng.standard_normal((1, 1, 5, 5), dtype=np.float32)),
            (canvas, canvas),
            mode="bicubic",
        )[0]
        mask = torch.sigmoid((blob - 0.4) * canvas / 4)
        layer = film(torch.cat([front, mask]), _camera(rng, frames, max(speed, 0.5)), size)
        cover = layer[:, 3:].clamp(0, 1)
        scene = scene * (1 - cover) + layer[:, :3] * cover
    levels = (scene.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())

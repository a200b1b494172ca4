"""The models by name: their configurations, and where their weights and text come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from vr_trt.errors import UsageError
from vr_trt.export.checkpoint import load_generator_weights, load_vae_weights
from vr_trt.export.config import (
    DETAIL_NANO,
    GENERATOR_3B,
    GENERATOR_7B,
    GENERATOR_NANO,
    VAE,
    VAE_NANO,
    GeneratorConfig,
    VaeConfig,
)
from vr_trt.export.text import POSITIVE_TEXT, load_text
from vr_trt.export.weights import require
from vr_trt.export.weights_hashes import known_hash
from vr_trt.kernels.detail import PUBLISHED_DETAIL

NANO_WEIGHTS = Path(__file__).parent / "nano" / "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """A model's configurations and the files it is read from."""

    name: str
    generator: GeneratorConfig
    vae: VaeConfig
    generator_file: Path
    vae_file: Path
    detail: tuple[float, ...] = PUBLISHED_DETAIL  # its shares, see `kernels.detail`

    def __post_init__(self) -> None:
        if self.generator_file.name == self.vae_file.name:  # which records tell them apart by
            raise UsageError(
                f"the generator and the VAE are both called {self.vae_file.name}: rename one"
            )

    def load_generator(self) -> Mapping[str, Tensor]:
        """The generator's tensors, read when asked for; ModelError for a wrong file."""
        return load_generator_weights(self.generator_file, self.generator)

    def load_vae(self) -> Mapping[str, Tensor]:
        """The VAE's tensors, read when asked for; ModelError for a wrong file."""
        return load_vae_weights(self.vae_file, self.vae)

    def load_text(self) -> Tensor:
        """The prompt [L, text_width]."""
        if self.name == "nano":
            return load_file(NANO_WEIGHTS / "text.safetensors")["text"].float()
        return load_text(POSITIVE_TEXT, self.generator.text_width).float()

    def sha256(self) -> dict[str, str]:
        """The hash of the generator's file, then of the VAE's: what an export is made from."""
        return {path.name: known_hash(path) for path in (self.generator_file, self.vae_file)}


PUBLISHED: dict[str, tuple[GeneratorConfig, str]] = {
    "seedvr2-3b": (GENERATOR_3B, "seedvr2-3b-fp16"),
    "seedvr2-7b": (GENERATOR_7B, "seedvr2-7b-fp16"),
    "seedvr2-7b-sharp": (GENERATOR_7B, "seedvr2-7b-sharp-fp16"),
}
PUBLISHED_VAE = "vae-fp16"
MODELS = ("nano", *PUBLISHED)


def find_model_files(
    name: str, generator_file: Path | None = None, vae_file: Path | None = None
) -> ModelFiles:
    """The model `name`; files that are not given are those pulled before.

    UsageError for an unknown name, ModelError for weights that are not here.
    """
    if name == "nano":
        return ModelFiles(
            name=name,
            generator=GENERATOR_NANO,
            vae=VAE_NANO,
            generator_file=generator_file or NANO_WEIGHTS / "generator.safetensors",
            vae_file=vae_file or NANO_WEIGHTS / "vae.safetensors",
            detail=DETAIL_NANO,
        )
    if name not in PUBLISHED:
        raise UsageError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")
    config, weights = PUBLISHED[name]
    return ModelFiles(
        name=name,
        generator=config,
        vae=VAE,
        generator_file=generator_file or require(weights),
        vae_file=vae_file or require(PUBLISHED_VAE),
    )

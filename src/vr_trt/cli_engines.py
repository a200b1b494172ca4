"""`vr-trt engines`: building engines, and looking after those that were built."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vr_trt.cli_options import GeneratorFile, Json, Size, VaeFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from vr_trt.engines.build import BuildRequest
    from vr_trt.engines.builder import Builder
    from vr_trt.engines.cache import Canvas
    from vr_trt.engines.profiles import Profile

app = typer.Typer(help="Build, check and list engines.", no_args_is_help=True)

DEFAULT_BACKENDS = ("tensorrt-rtx", "tensorrt", "onnxruntime")


@app.command()
def build(
    model: Annotated[str, typer.Option(help="The model, or the folder of an export.")] = "nano",
    profile: Annotated[str, typer.Option(help="Size and window; see `vr-trt profiles`.")] = "360p",
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, fp16, bf16 or fp8.", show_default="the profile's"),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="tensorrt-rtx, tensorrt, triton or onnxruntime.", show_default="all but triton"
        ),
    ] = None,
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="89,120", help="Chips by compute capability.", show_default="by backend"
        ),
    ] = None,
    size: Size = None,
    cut: Annotated[
        bool | None,
        typer.Option(
            "--cut/--whole",
            help="Cut the VAE by resolution, or leave it whole.",
            show_default="as the profile says",
        ),
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be repeated.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of the backend; may be repeated."),
    ] = None,
    generator_file: GeneratorFile = None,
    vae_file: VaeFile = None,
    json: Json = False,
) -> None:
    """Build a profile's engines; those that are there already are left as they are."""
    from dataclasses import replace

    from vr_trt.cli_engines_report import build_display
    from vr_trt.engines.build import BuildRequest, build_engines

    row = _profile(profile)
    asked = BuildRequest(
        model=_located(model),
        profile=row.name,
        canvas=_canvas(size, row),
        backend=backend or "",
        targets=_targets(sm),
        precision=precision,
        default_precision=row.precision,
        cut=cut,
        default_cut=row.cut,
        stages=tuple(stage or ()),
        options=_options(option or []),
        generator_file=generator_file,
        vae_file=vae_file,
    )
    with build_display(json) as display:
        for name in [backend] if backend else _usable_backends(asked, display.says):
            wanted = replace(asked, backend=name)
            if name == "onnxruntime":  # fp32 is what a CPU is fast in, and what others are held to
                wanted = replace(wanted, default_precision="fp32")
            build_engines(wanted, display.watch(wanted))
        display.finish()


@app.command("list")
def list_engines(json: Json = False) -> None:
    """Show the engines that were built."""
    from vr_trt.cli_engines_report import show_engines
    from vr_trt.engines.cache import EngineCache

    cache = EngineCache()
    show_engines(list(cache.engines()), cache.store.root, json)


@app.command()
def verify(json: Json = False) -> None:
    """Read every engine again: damaged, foreign and stale ones are named."""
    from vr_trt.cli_engines_report import show_finding
    from vr_trt.engines.verify import examine
    from vr_trt.errors import ModelError

    bad = []
    for finding in examine():
        show_finding(finding, json)
        if finding.state in ("damaged", "foreign"):
            bad.append(finding)
    if bad:
        raise ModelError(
            f"{len(bad)} of the engines cannot be used, first {bad[0].name}: "
            "`vr-trt engines prune` removes them, then build again"
        )


@app.command()
def prune(
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="Engines built before that.", min=0),
    ] = None,
    unused_for: Annotated[
        float | None,
        typer.Option("--unused-for", metavar="DAYS", help="Engines not opened since.", min=0),
    ] = None,
    larger_than: Annotated[
        float | None,
        typer.Option("--keep-gb", metavar="GB", help="Keep so much, the last used first.", min=0),
    ] = None,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Graphs as well; a build makes them again.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Engines that `verify` calls stale.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Remove what killed builds left, damaged and foreign engines, and what the options name."""
    from vr_trt.cli_engines_report import show_removed
    from vr_trt.engines.prune import PruneRule, prune_engines

    rule = PruneRule(
        older_than_days=older_than,
        unused_for_days=unused_for,
        keep_bytes=None if larger_than is None else int(larger_than * 1e9),
        stale=stale,
        graphs=graphs,
    )
    show_removed(prune_engines(rule, dry_run=dry_run), dry_run, json)


@app.command()
def debug(
    graph: Annotated[
        Path | None, typer.Argument(help="The graph of a stage, for --compare or --reduce.")
    ] = None,
    fusions: Annotated[
        Path | None,
        typer.Option(help="Say which kernels a TensorRT-RTX plan (or its folder) consists of."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare ONNX Runtime with the GPU, by Polygraphy.")
    ] = False,
    reduce: Annotated[
        bool,
        typer.Option("--reduce", help="Find the smallest part of the graph that does not build."),
    ] = False,
    json: Json = False,
) -> None:
    """Look into a plan, or hand a graph to Polygraphy."""
    from vr_trt.cli_engines_report import show_fusions
    from vr_trt.errors import UsageError

    if fusions is not None:
        from vr_trt.engines.plan_report import report_plan

        show_fusions(report_plan(fusions), json)
        return
    if graph is None or compare == reduce:
        raise UsageError("give --fusions PLAN, or a graph with --compare or --reduce")
    from vr_trt.engines.polygraphy_tool import run_polygraphy

    raise typer.Exit(run_polygraphy("compare" if compare else "reduce", graph))


def _located(model: str) -> str:
    """A folder by its whole path, so that its engines know it from anywhere."""
    return str(Path(model).resolve()) if Path(model, "manifest.json").is_file() else model


def _profile(name: str) -> "Profile":
    from vr_trt.engines.profiles import find_profile
    from vr_trt.errors import ModelError, UsageError

    try:
        return find_profile(name)
    except UsageError as error:  # an engine that nobody can name is a missing engine
        raise ModelError(str(error)) from None


def _canvas(size: str | None, row: "Profile") -> "Canvas":
    from vr_trt.engines.cache import Canvas
    from vr_trt.errors import ModelError
    from vr_trt.runtime.canvas import canvas

    wanted = re.fullmatch(r"(\d+)x(\d+)", size or "16x9")
    if wanted is None or "0" in wanted.groups():
        raise ModelError(f"{size} is not a size: write it as 1280x720")
    width, height = int(wanted[1]), int(wanted[2])
    padded = canvas(width, height, min(width, height) if size else row.short_side)
    return Canvas(
        width=padded.padded_w,
        height=padded.padded_h,
        latents=row.window_latents,
        step=row.latents_per_step,
    )


def _targets(text: str | None) -> tuple[int, ...]:
    from vr_trt.engines.chips import CHIPS, listed
    from vr_trt.errors import ModelError

    targets = []
    for part in (text or "").replace(" ", "").split(",") if text else []:
        number = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d*)", part.lower())
        if number is None or int(number[1] + number[2]) not in CHIPS:
            raise ModelError(f"unknown compute capability {part!r}: choose of {listed(CHIPS)}")
        targets.append(int(number[1] + number[2]))
    return tuple(targets)


def _options(pairs: list[str]) -> dict[str, str]:
    from vr_trt.errors import ModelError

    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ModelError(f"{wrong[0]} is not an option: write it as NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _usable_backends(asked: "BuildRequest", says: "Callable[[str], None]") -> list[str]:
    """The backends that build for what is asked here; those that lack a package are named once."""
    from vr_trt.engines.builder import find_builder
    from vr_trt.errors import ModelError

    builders = [find_builder(name) for name in DEFAULT_BACKENDS]
    if asked.targets:  # only those for these chips; if none is, the first says why
        wanted = set(asked.targets)
        builders = [b for b in builders if wanted <= set(b.targets)] or builders[:1]
    reasons = {builder.name: builder.available() or _lacks(builder, asked) for builder in builders}
    usable = [name for name, reason in reasons.items() if reason is None]
    if not usable:
        raise ModelError("; ".join(reason for reason in reasons.values() if reason))
    for name, reason in reasons.items():
        if reason and name != "tensorrt":  # whose absence is no news without its GPU
            says(f"skipped: {reason}")
    return usable


def _lacks(builder: "Builder", asked: "BuildRequest") -> str | None:
    """Why a backend that nobody named cannot build in the precision; chips that were named are
    checked where they are built for."""
    from vr_trt.errors import ModelError

    if asked.precision is None or asked.targets:
        return None
    try:
        for sm in builder.default_targets or (None,):
            builder.check(asked.precision, sm)
    except ModelError as error:
        return str(error)
    return None

"""`vr-trt weights`: fetching, checking and listing the published weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vr_trt.export.weights import LocalFile

app = typer.Typer(help="Fetch, check and list the published weights.", no_args_is_help=True)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        help="The folder where weights are kept.",
        show_default="$VR_TRT_WEIGHTS, else ~/.cache/vr-trt/weights",
    ),
]


@app.command()
def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Names from `weights list`, or models: seedvr2-3b is its generator and the VAE."
        ),
    ],
    folder: Folder = None,
) -> None:
    """Download weights and check their hashes; a download that was interrupted continues."""
    from vr_trt.export import weights
    from vr_trt.export.weights_table import wanted

    files = {file.name: file for name in names for file in wanted(name)}
    for file in files.values():
        typer.echo(f"{file.name}: {file.filename}, {_size(file.gigabytes)}", err=True)
        typer.echo(weights.pull(file.name, folder))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names from `weights list`, models, or paths.", show_default="all that are here"
        ),
    ] = None,
    folder: Folder = None,
) -> None:
    """Read weights and compare their hashes with the published or recorded ones."""
    from vr_trt.errors import ModelError
    from vr_trt.export import weights
    from vr_trt.export.weights_table import table, wanted

    models = {file.model for file in table() if file.kind == "generator"}
    names = [
        part
        for name in names or ()
        for part in ([file.name for file in wanted(name)] if name in models else [name])
    ]
    if not names:
        here = [local for local in weights.local_files(folder) if local.state != "absent"]
        names = [local.file.name for local in here if local.state != "partial"]
    damaged: list[ModelError] = []
    for name in names:
        try:
            path, sha256 = weights.verify(name, folder)
        except ModelError as error:
            typer.echo(f"damaged or absent: {name}", err=True)
            damaged.append(error)
        else:
            typer.echo(f"verified {path} {sha256}")
    if damaged:
        raise damaged[0]


@app.command("list")
def list_files(
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")] = False,
) -> None:
    """Show every published file, and whether it is here."""
    from vr_trt.export import weights

    files = weights.local_files(folder)
    if as_json:
        typer.echo(weights.as_json(files))
    else:
        _print_table(files, weights.weights_folder(folder))


def _print_table(files: "list[LocalFile]", folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=f"folder: {folder}", caption_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("repository", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("hash", no_wrap=True)
    table.add_column("here", no_wrap=True)
    for local in files:
        file = local.file
        known = "published" if file.sha256 else "recorded"
        table.add_row(file.name, file.repository, _size(file.gigabytes), known, local.state)
    Console().print(table)


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.1f} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:.1f} MB"

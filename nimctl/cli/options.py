"""The options that several verbs share, so that they are spelt and explained once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; people's text goes to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and results.")]


class ProgressForm(StrEnum):
    """How progress is told."""

    auto = "auto"
    tty = "tty"
    plain = "plain"
    json = "json"


Progress = Annotated[
    ProgressForm,
    typer.Option(
        help="tty redraws, plain and json write lines, those of json on stderr; auto is what fits.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")]

Model = Annotated[
    str | None,
    typer.Argument(
        help="A recipe (see `nimctl models`), a folder with a checkpoint, or an image reference. "
        "Left out: `model` of the configuration, else kimi-k2.5.",
        show_default=False,
    ),
]
RunName = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The run; left out: the only one.", show_default=False)
]
Gpus = Annotated[
    str | None,
    typer.Option(help="all, a number, indices like 0,3, device=UUID, or none for the CPU.", show_default=False),
]
Verify = Annotated[
    str | None,
    typer.Option(
        metavar="off|warn|require",
        help="What an image or weights without a good signature mean [default: warn].",
        show_default=False,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for weights and compile caches [default: ~/.cache/nim].", show_default=False),
]
Host = Annotated[str | None, typer.Option(help="Address to publish on [default: 127.0.0.1].", show_default=False)]
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, help="Port to publish on [default: 8000].", show_default=False)
]
Runtime = Annotated[str | None, typer.Option(help="docker or process [default: docker].", show_default=False)]
Image = Annotated[str | None, typer.Option(help="Run this image instead of the recipe's.", show_default=False)]

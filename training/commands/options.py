"""What verbs are told on the command line, where several are told the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from app.bundle.manifest import MODALITIES, Fit, Modality, Task
from training.recipes.finetune import FINETUNE
from training.recipes.registry import RECIPES
from training.recipes.wanted import NAMES

RecipeName = Annotated[str, typer.Argument(help=f"One of: {', '.join(NAMES)}.")]


def _without_own_rows(name: str) -> str:
    if name == FINETUNE:
        raise typer.BadParameter(f"{FINETUNE} is only trained. Choose one of: {', '.join(RECIPES)}.")
    return name


OwnRecipeName = Annotated[
    str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.", callback=_without_own_rows)
]
Out = Annotated[
    Path, typer.Option(file_okay=False, help="Folder for the checkpoint, the report and the bundle.")
]
Data = Annotated[
    Path | None, typer.Option(help="Folder with the data sets; without it those of digits are downloaded.")
]
CacheFolder = Annotated[Path, typer.Option(help="Where downloads and decoded rows are kept.")]
Version = Annotated[int, typer.Option(min=1, help="Version of the bundle; one is published once.")]
Seed = Annotated[int, typer.Option(min=0, help="One seed, one result, on the same kind of machine.")]
Seeds = Annotated[int, typer.Option(min=1, help="So many, from --seed on; the best one is published.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard as the run goes on.")]
FusionName = Annotated[
    str | None, typer.Option(help="LEVEL/METHOD instead of the recipe's own, such as model/low_rank.")
]
ManifestFile = Annotated[
    Path | None, typer.Option(help=f"{FINETUNE}: the table of rows, JSONL, CSV or Parquet.")
]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        help=f"{FINETUNE}: MODALITY=ENCODER for each modality that is read: an id of the Hugging Face hub "
        "(ID@COMMIT for one commit), a folder, or residual, plain; ngrams, convolution, transformer; mel."
    ),
]
Tuned = Annotated[
    str | None,
    typer.Option(
        "--tune", help=f"{FINETUNE}: modalities whose pretrained weights learn, too, separated by commas."
    ),
]
TaskKind = Annotated[Task, typer.Option(help=f"{FINETUNE}: one label for each row, or any number.")]
ImageFit = Annotated[
    Fit | None,
    typer.Option(
        help=f"{FINETUNE}: of a picture of another shape read the centre, all of it padded, or all of it "
        "stretched; without it, what the encoder's own files say."
    ),
]
BundleName = Annotated[str | None, typer.Option("--name", help=f"{FINETUNE}: name of the bundle.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's own.")]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Instead of the recipe's own.")]
LearningRate = Annotated[float | None, typer.Option(min=0, help="Instead of the recipe's own.")]
DeviceName = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU if there is one.")]


def device_of(name: str) -> torch.device:
    """Under torchrun `cuda` is the GPU that joined_world chose for this process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise typer.BadParameter("torch finds no GPU here. Choose --device cpu.")
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def encoders_of(said: list[str]) -> dict[Modality, str]:
    """Of `image=ID` each; a folder becomes an absolute path, so that export finds it from anywhere."""
    encoders: dict[Modality, str] = {}
    for one in said:
        name, _, source = one.partition("=")
        if not source:
            raise typer.BadParameter(
                f"'{one}' is not MODALITY=ENCODER, such as image=google/vit-base-patch16-224."
            )
        modality = modality_of(name)
        if modality in encoders:
            raise typer.BadParameter(f"two encoders are named for {modality}. Leave one out.")
        encoders[modality] = str(Path(source).resolve()) if Path(source).is_dir() else source
    return encoders


def modality_of(said: str) -> Modality:
    for name in MODALITIES:
        if said == name:
            return name
    raise typer.BadParameter(f"'{said}' is no modality. There are: {', '.join(MODALITIES)}.")

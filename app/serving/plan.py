"""Which versions of a model serve, and who gets which: `models/<name>/serving.json`, or the default.

The file is the one place where this is said, so that it survives a restart and every worker process
follows it. People may edit it; the admin routes write it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict

FILE: Final = "serving.json"


def _number(value: object) -> object:
    """A number as JSON has it: neither a string of digits nor a truth value."""
    if isinstance(value, str | bool):
        raise ValueError("this is not a number")  # noqa: TRY004 - what pydantic expects of a validator
    return value


Version = Annotated[int, Field(gt=0), BeforeValidator(_number)]
# for OpenAPI: what _canary_has_a_stable says
_CANARY_ALONE: Final[JsonDict] = {
    "required": ["canary"],
    "properties": {"canary": {"type": "integer"}, "stable": {"type": "null"}},
}
Policy = Literal["latest", "all"] | tuple[Version, ...]


class PlanInvalid(Exception):
    """serving.json cannot be read, or cannot be written."""


class Plan(BaseModel):
    """One model's versions and traffic."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"not": _CANARY_ALONE})

    versions: Policy = Field(default="latest", description="The highest good one, all, or these.")
    stable: Version | None = Field(
        default=None, description="Answers unless another is named; else the highest."
    )
    canary: Version | None = Field(default=None, description="Gets `canary_share` of what names no version.")
    canary_share: Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)] = 0.0
    previous: Version | None = Field(
        default=None, description="What `stable` was before: where rollback leads."
    )
    enabled: bool = Field(default=True, strict=True, description="False unloads the model.")

    @model_validator(mode="after")
    def _canary_has_a_stable(self) -> Self:
        if self.canary is not None and self.stable is None:
            raise ValueError("a canary needs a stable version beside it")
        return self

    def candidates(self, on_disk: Sequence[int]) -> list[tuple[int, ...]]:
        """Groups of versions to serve; of each group the first that is good."""
        if not self.enabled:
            return []
        highest_first = tuple(sorted(on_disk, reverse=True))
        if self.versions == "all":
            groups: list[tuple[int, ...]] = [(version,) for version in highest_first]
        elif self.versions == "latest":
            groups = [highest_first] if highest_first else []
        else:
            groups = [(version,) for version in highest_first if version in self.versions]
        # The one before stays loaded, so that going back to it is instant.
        labels = (self.stable, self.canary, self.previous)
        labelled = [(label,) for label in labels if label is not None and label in on_disk]
        return [*groups, *labelled]

    def pick(self, live: Sequence[int], *, draw: float) -> int:
        """The version for a request that names none; `draw` is uniform in 0..1."""
        assert live, "asked only when the model is live"
        if self.canary is not None and self.canary in live and draw < self.canary_share:
            return self.canary
        return self.stable if self.stable is not None and self.stable in live else max(live)

    def promoted(self, version: int, *, now: int | None) -> Plan:
        """`version` becomes stable; `now` is what answers at present. Said again, it leads back as before."""
        previous = self.previous if now == version else now
        return self.model_copy(
            update={"stable": version, "previous": previous, "canary": None, "canary_share": 0.0}
        )


def read_plan(folder: Path, default: Plan) -> Plan:
    """The plan of the model in this folder. Raises PlanInvalid."""
    try:
        body = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return default
    except OSError as error:
        raise PlanInvalid(f"{folder.name}/{FILE}: it cannot be opened.") from error
    try:
        return Plan.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise PlanInvalid(f"{folder.name}/{FILE}: {where}: {first['msg']}.") from error


def has_plan(folder: Path) -> bool:
    """Whether the model in this folder has a plan of its own, good or bad."""
    return (folder / FILE).exists()


def remove_plan(folder: Path) -> None:
    """From now on the default holds. Raises PlanInvalid where the folder cannot be written."""
    try:
        (folder / FILE).unlink(missing_ok=True)
    except OSError as error:
        raise PlanInvalid(f"{folder.name}/{FILE} cannot be removed.") from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Replace the file in one step. Raises PlanInvalid where the folder cannot be written."""
    draft = folder / f".{FILE}-{secrets.token_hex(4)}"
    try:
        draft.write_text(plan.model_dump_json(indent=1, exclude_none=True))
        draft.replace(folder / FILE)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise PlanInvalid(
            f"{folder.name}/{FILE} cannot be written, so the change would be lost. Mount the models folder "
            "writable, or edit the file where it comes from."
        ) from error

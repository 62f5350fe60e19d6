"""What all sections of mirror.yaml have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from . import values

Seconds = Annotated[float, BeforeValidator(values.seconds)]


class Section(BaseModel):
    """Frozen, and without a word about values in its own errors: some are secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def or_empty(section: object) -> object:
    """A section whose keys are all commented out is as good as none."""
    return {} if section is None else section


def or_none_listed(section: object) -> object:
    """As `or_empty`, of a list."""
    return () if section is None else section

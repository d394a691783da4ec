"""Where custom nodes import the models behind a MODEL object from.

There is one class for every family here; what packs know as a family's class is for `isinstance`, and says what the family is.
"""

from __future__ import annotations

from typing import Any

from comfy.models.base import BaseModel, ModelType

__all__ = ["SDXL", "BaseModel", "Flux", "ModelType", "SDXLRefiner"]


class _ByFamily(type):
    """A class whose instances are the models of some families: those with that kind of vector conditioning."""

    vector: str | None

    def __instancecheck__(cls, instance: Any) -> bool:
        if type.__instancecheck__(cls, instance):
            return True
        wanted = vars(cls).get("vector")
        return wanted is not None and isinstance(instance, BaseModel) and instance.source.family.vector == wanted


class SDXL(BaseModel, metaclass=_ByFamily):
    """SDXL, and the smaller models made from it."""

    vector = "sdxl_vector"


class SDXLRefiner(BaseModel, metaclass=_ByFamily):
    """SDXL's refiner."""

    vector = "refiner_vector"


class Flux(BaseModel, metaclass=_ByFamily):
    """No model of this server is one: the family is not here."""

    vector = None

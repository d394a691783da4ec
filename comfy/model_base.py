"""Where custom nodes import the models behind a MODEL object from."""

from comfy.models.base import BaseModel, ModelType

__all__ = ["BaseModel", "ModelType"]

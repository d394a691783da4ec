"""A family's model as sampling and custom nodes see it: scaling, parameterization and one resident network.

A BaseModel belongs to one handle and is used by one lane; it holds no weights. `diffusion_model` asks that lane for the
network at each use.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from comfy import latent_formats
from comfy.device import context
from comfy.errors import InputUnusable
from comfy.models import adm
from comfy.models.changes import Changes
from comfy.models.component import Component, network_shapes
from comfy.models.family import Family, UNetConfig
from comfy.models.hooks import HookGroup, hooked_patches
from comfy.models.inpaint import edit_concat, inpaint_concat
from comfy.sampling import extension
from comfy.sampling.conds import CONDCrossAttn, CONDNoiseShape, CONDRegular
from comfy.sampling.extension import WrapperExecutor, WrappersMP
from comfy.sampling.host import host_value
from comfy.sampling.parameterization import make_model_sampling

#: prefix of the network's weights in the keys that patches use
PREFIX = "diffusion_model."
#: of a GPU's budget: what one evaluation of the network may take beside the weights
ACTIVATION_SHARE = 0.15


class ModelType(enum.Enum):
    """What a network predicts, as packs name it."""

    EPS = 1
    V_PREDICTION = 2
    V_PREDICTION_EDM = 3
    STABLE_CASCADE = 4
    EDM = 5
    FLOW = 6
    V_PREDICTION_CONTINUOUS = 7
    FLUX = 8
    IMG_TO_IMG = 9
    FLOW_COSMOS = 10


_TYPES = {
    "eps": ModelType.EPS,
    "v": ModelType.V_PREDICTION,
    "v_prediction": ModelType.V_PREDICTION,
    "v_prediction_edm": ModelType.V_PREDICTION_EDM,
    "edm": ModelType.EDM,
    "flow": ModelType.FLOW,
    "flux": ModelType.FLUX,
}


@dataclass
class ModelConfig:
    """What packs read as `model.model_config`."""

    unet_config: dict[str, Any]
    sampling_settings: dict[str, Any]
    latent_format: Any
    supported_inference_dtypes: list[torch.dtype]
    unet_extra_config: dict[str, Any] = field(default_factory=dict)
    memory_usage_factor: float = 1.0
    manual_cast_dtype: torch.dtype | None = None


@dataclass(frozen=True)
class DenoiserSource:
    """What a MODEL handle holds: a family row and a description of the network. Frozen and picklable."""

    family: Family
    component: Component

    @property
    def unet(self) -> UNetConfig:
        """The network's structure."""
        assert isinstance(self.component.config, UNetConfig)
        return self.component.config

    def components(self) -> dict[str, Component]:
        return {PREFIX: self.component}

    def view(self, changes: Changes) -> BaseModel:
        return BaseModel(self, changes)


class BaseModel:
    """The model of one handle on one lane.

    changes  of the handle; their name is part of what the runner keys its graphs by
    """

    def __init__(self, source: DenoiserSource, changes: Changes | None = None) -> None:
        family, unet = source.family, source.unet
        settings = dict(family.sampling_settings)
        self.source = source
        self.changes = changes or Changes()
        self.model_type = _TYPES.get(family.sampling, ModelType.EPS)
        self.latent_format: Any = getattr(latent_formats, family.latent_format)()
        self.model_sampling: Any = make_model_sampling(family.sampling, **settings)
        unet_config = {name: getattr(unet, name) for name in UNetConfig.__dataclass_fields__}
        self.model_config = ModelConfig(unet_config, settings, self.latent_format, list(family.dtypes))
        self.adm_channels = unet.adm_in_channels or 0
        self.concat_keys: tuple[str, ...] = ("mask", "masked_image") if unet.in_channels == 9 else ()
        self.current_patcher: Any = None
        self._hooked: dict[Any, Changes] = {}
        self._now = self.changes

    @property
    def diffusion_model(self) -> nn.Module:
        """The calling lane's network. Raises OutsideLane in a thread that belongs to none."""
        return self._now.network(self.source, PREFIX, context.current())

    def apply_hooks(self, hooks: Any, timestep: Tensor | None = None) -> None:
        """From now on evaluate with the weights that `hooks` (a HookGroup) call for at the noise level `timestep` (b,); None: its own."""
        self._now = self.changes
        if not isinstance(hooks, HookGroup):
            return
        sigma = float("inf") if timestep is None else host_value(timestep)
        strengths = hooks.strengths_at(sigma, self.model_sampling.percent_to_sigma)
        if not any(strengths):
            return
        key = (hooks, strengths)
        if key not in self._hooked:
            shapes = network_shapes(self.source.component.config)
            patches = hooked_patches(self.changes.patches, self, hooks, strengths, lambda name: name.removeprefix(PREFIX) in shapes)
            name = uuid.uuid5(self.changes.name, repr(key))
            self._hooked[key] = replace(self.changes, patches=patches, name=name)
        self._now = self._hooked[key]

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return context.current().device

    def get_dtype(self) -> torch.dtype:
        """The dtype that the network computes in on the calling lane."""
        return context.current().run_dtype(self.source.family.dtypes)

    def state_dict(self) -> dict[str, Tensor]:
        """Every weight by the name that patches use: views of the resident network, never to be written to."""
        return {PREFIX + name: tensor for name, tensor in self.diffusion_model.state_dict().items()}

    def apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x (b, c, h, w) float32 at noise level t (b,) -> the estimate of the clean latent, like x.

        c_concat     (b, c', h, w) further channels of the network's input
        c_crossattn  (b, s, d) the prompt
        kwargs       further inputs of the network by name: `y` and what the family's `extra_conds` adds
        Wrappers of the kinds apply_model and diffusion_model stand around it and around the network call.
        """
        options = {} if transformer_options is None else transformer_options
        wrappers = extension.get_all_wrappers(WrappersMP.APPLY_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._apply_model, self, wrappers)
        return executor.execute(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        options = {} if transformer_options is None else transformer_options
        dtype = self.get_dtype()
        network_input = self.model_sampling.calculate_input(t, x)
        if c_concat is not None:
            network_input = torch.cat([network_input, c_concat.to(network_input)], dim=1)
        timestep = self.model_sampling.timestep(t).float()
        context_bsd = None if c_crossattn is None else c_crossattn.to(device=x.device, dtype=dtype)
        extra = {name: _cast(value, dtype) for name, value in kwargs.items() if value is not None}
        wrappers = extension.get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._run, self.diffusion_model, wrappers)
        output = executor.execute(network_input.to(dtype), timestep, context_bsd, control=control, transformer_options=options, **extra)
        return self.model_sampling.calculate_denoised(t, output.float(), x)

    def _run(
        self,
        x: Tensor,
        timesteps: Tensor,
        context_bsd: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **extra: Any,
    ) -> Tensor:
        """The network call itself, by the lane's runner."""
        lane = context.current()
        key = (self.source.component, self._now.variant(PREFIX))
        network = self.diffusion_model
        return lane.runner.run(
            network, key, x, timesteps, context_bsd, y=y, control=control, options=transformer_options, extra=extra or None
        )

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """One conditioning entry and the sampling's facts -> {argument of apply_model: value}.

        Reads cross_attn, cross_attn_controlnet, noise, device, and for the extra channels concat_mask,
        concat_latent_image, denoise_mask, latent_image.
        """
        found: dict[str, Any] = {}
        concat = self.concat_cond(**kwargs)
        if concat is not None:
            found["c_concat"] = CONDNoiseShape(concat)
        vector = self.encode_adm(**kwargs)
        if vector is not None:
            found["y"] = CONDRegular(vector)
        if kwargs.get("cross_attn") is not None:
            found["c_crossattn"] = CONDCrossAttn(kwargs["cross_attn"])
        if kwargs.get("cross_attn_controlnet") is not None:
            found["crossattn_controlnet"] = CONDCrossAttn(kwargs["cross_attn_controlnet"])
        return found

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """(b, c', h, w): the network's channels beyond the latent's, or None when it has none."""
        noise = kwargs.get("noise")
        more = self.source.unet.in_channels - self.latent_format.latent_channels
        if more == 0 or noise is None:
            return None
        if more == self.latent_format.latent_channels:
            picture = kwargs.get("concat_latent_image")
            if picture is not None and self.source.family.vector:  # SDXL's edit models read their own scale, SD1's the nodes'
                picture = self.process_latent_in(picture)
            return edit_concat(noise, picture)
        names = ("concat_mask", "concat_latent_image", "denoise_mask", "latent_image")
        return inpaint_concat(noise, self.process_latent_in, **{name: kwargs.get(name) for name in names})

    def encode_adm(self, **kwargs: Any) -> Tensor | None:
        """(1, v): the vector conditioning, or None for a family without.

        Reads pooled_output, prompt_type, and sizes, crops and scores where the conditioning has them. Raises InputUnusable
        when the pooled state is missing or is that of another text encoder.
        """
        if not self.source.family.vector:
            return None
        pooled = kwargs.get("pooled_output")
        vector = (
            None if pooled is None else getattr(adm, self.source.family.vector)(pooled.to(kwargs.get("device") or pooled.device), **kwargs)
        )
        if vector is None or vector.shape[1] != self.adm_channels:
            found = None if vector is None else vector.shape[1]
            raise InputUnusable("The conditioning was not made by this model's text encoder.", vector=found, expected=self.adm_channels)
        return vector

    def process_latent_in(self, latent: Tensor) -> Tensor:
        """A latent as nodes hand it around -> the model's scale."""
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent: Tensor) -> Tensor:
        """The inverse."""
        return self.latent_format.process_out(latent)

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **kwargs: Any) -> Tensor:
        """The known part of a picture at noise level `sigma` (b,), for inpainting."""
        level = sigma.reshape([sigma.shape[0]] + [1] * (noise.ndim - 1))
        return self.model_sampling.noise_scaling(level, noise, latent_image)

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Any = None) -> int:
        """Bytes of activations for an input (b, c, h, w): a bound from shapes alone, the same on every lane.

        At its widest the UNet holds the skip tensors of the way down (about 10 full-size maps of model_channels, deeper
        ones included) and the working set of one block with its feed-forward (about 14 more).
        """
        cells = 1
        for n in input_shape[2:]:
            cells *= n
        itemsize = max(self.source.family.dtypes[0].itemsize, 2)
        return int(input_shape[0] * cells * self.source.unet.model_channels * 24 * itemsize)

    @property
    def batch_budget_bytes(self) -> int | None:
        """What one evaluation may take on the calling lane, of its fixed budget; None on a CPU or outside a lane."""
        lane = context.current_or_none()
        if lane is None or lane.device.type == "cpu":
            return None
        return int(lane.budget_bytes * ACTIVATION_SHARE)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in the network's dtype; everything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value

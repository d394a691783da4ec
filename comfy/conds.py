"""Where custom nodes import the kinds of model conditioning from."""

from comfy.sampling.conds import CONDConstant, CONDCrossAttn, CONDList, CONDNoiseShape, CONDRegular

__all__ = ["CONDConstant", "CONDCrossAttn", "CONDList", "CONDNoiseShape", "CONDRegular"]

"""Maths on pictures, masks and latents: pure functions, tensors in, tensors out, no model and no node.

Shapes are named after their axes: b batch, c channels, t frames, h height, w width. Pictures of nodes are `bhwc` in
0..1; functions whose name or argument says `bchw` take the layout of torch's convolutions. `comfy/images.py` gives all
names in one place.
"""

"""The node classes of `comfy_extras.nodes_custom_sampler`, by subject."""

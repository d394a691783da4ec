"""Changes of what happens inside a UNet while it samples, from papers; docs/fidelity.md lists them.

Each class is a set of patches for one MODEL handle (contract: custom-nodes.md section 6, `set_model_…`). A handle is
valid on any lane, so none keeps anything between two calls: what one patch leaves for another travels in the call's options.
"""

"""The V3 node API (contract: custom-nodes.md section 4): a node declares a schema and consists of class methods.

`comfy_api.latest.io` is `comfy.nodes.v3.io`; our own new-style nodes import it from here.
"""

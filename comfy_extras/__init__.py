"""Built-in nodes beyond the first ones: one module per subject, at the paths where custom nodes import them."""

"""Where custom nodes import the prompt grammar from."""

from comfy.text_encoders.weights_grammar import escape_important, token_weights, unescape_important

__all__ = ["escape_important", "token_weights", "unescape_important"]

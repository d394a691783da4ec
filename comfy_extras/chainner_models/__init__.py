"""Edge: where older custom nodes load upscale models from."""

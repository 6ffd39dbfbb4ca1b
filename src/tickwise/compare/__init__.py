"""The same jobs done by a language model and by a classical program, measured alike."""

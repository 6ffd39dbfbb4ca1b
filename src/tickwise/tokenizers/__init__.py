"""Text to ids and back: char, word and byte-level BPE tokenizers, saved as ``tokenizer.json``."""

"""From a prompt to text: KV cache, sampling, generation, and the ``LanguageModel`` that joins them."""

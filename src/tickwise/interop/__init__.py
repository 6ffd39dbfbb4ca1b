"""Model directories in the Hugging Face layout: what training writes and every other verb reads."""

"""How well a model predicts text, with confidence intervals."""

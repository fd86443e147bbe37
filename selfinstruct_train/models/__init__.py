"""Loading models, tokenizers and what was tuned."""

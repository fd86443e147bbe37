"""Loading models, tokenizers and adapters."""

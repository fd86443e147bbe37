"""What a run made, in the forms that other programs take: data, adapter, merged weights, GGUF."""

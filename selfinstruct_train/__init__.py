"""Self-Instruct for open models, end to end: generate, train, evaluate, go round again."""

"""A model as the judge, below generation and evaluation."""

"""Text measures below every stage: ROUGE-L, novelty, words."""

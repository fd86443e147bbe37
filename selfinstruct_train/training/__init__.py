"""Step 5: LoRA on the data that the model wrote."""

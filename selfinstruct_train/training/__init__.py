"""Step 5: tuning on the data that the model wrote."""

"""What is trained on, held against every suite."""

"""What a run will take before it is begun: tokens, steps, memory, hours and money."""

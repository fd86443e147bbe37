"""What tuning did to everything else."""

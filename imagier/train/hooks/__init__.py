"""What watches a run: logs, images, evaluations, checkpoints, profiles, the report."""

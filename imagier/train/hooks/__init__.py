"""What watches a run: logs, pictures, evaluations, checkpoints, profiles, the report."""

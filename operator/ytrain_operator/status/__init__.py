"""What the job's status says: phase, conditions, failure, progress."""

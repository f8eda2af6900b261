"""The training loop and what it stands on: the plan of steps, the schedule, checkpoints, metrics, stop signals."""

"""Many processes: a launcher that knows the workers by index, and the agent of each that runs its ranks."""

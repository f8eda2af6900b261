"""Methods: from a job to a finished run. Each composes data, model, objective, training, evaluation and export."""

"""Scores answers: with the job's Python function, a built-in reward or an HTTP endpoint.

Whatever scores an answer runs outside the training process; what goes wrong there costs a sample, and is told.
"""

from ytrain.rl.rewards.sample import Failure, Sample
from ytrain.rl.rewards.service import RewardService, open_rewards

__all__ = ["Failure", "RewardService", "Sample", "open_rewards"]

"""What reinforcement learning is made of: rewards, advantages over sample trees, pruning."""

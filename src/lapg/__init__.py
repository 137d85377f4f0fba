"""Communication-efficient distributed reinforcement learning."""

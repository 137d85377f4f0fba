"""Many runs: tuned alike, compared by what they cost to reach a target, reported."""

"""What a run would cost and what it lacks, told without running it."""

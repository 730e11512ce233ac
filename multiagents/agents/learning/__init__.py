"""What an optimization is told: how good an answer is (`metric`), and what to make of it (`options`)."""

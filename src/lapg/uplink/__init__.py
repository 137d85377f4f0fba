"""What leaves a learner, part by part: memories, compressors, triggers."""

"""Tensor IR, its schedules, its reference interpreter, and the definition of each op in it."""

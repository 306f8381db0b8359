"""The cycle engine: what the functional engine computes, with the time that the RTL takes for it."""

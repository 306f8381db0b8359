"""Simulators: the functional, the cycle and the RTL engine, and the memory they share."""

"""A second, independent model of VTA written from the behavioural specification alone.

It shares no code with `vta_hw` or `vta_sim`: own configuration, own bit fields, own memory, own execution. Two
implementations which were written apart and agree on random programs are both right, or misread the same sentence.
It is plain numpy, one instruction at a time, and is meant to be read beside the specification.

`layout` bit fields, `dram` and `packing` memory, `machine` execution and tokens, `stream` recorded streams on disk,
`generate` random race-free programs, `fuzz` the comparison with the toolkit's functional simulator.
"""

"""A second, independent model of VTA written from the behavioural specification and decision 0006 alone.

It shares no code with `vta_hw` or `vta_sim`: own configuration, own bit fields, own memory, own execution. Two
implementations which were written apart and agree on random programs are both right, or misread the same sentence.
It is plain numpy, one instruction at a time, and is meant to be read beside the specification.

The model is `layout` (bit fields), `dram` and `packing` (memory), `machine` (instructions), `pipeline` (order, tokens).
Programs come from `stream` (recorded, on disk), `every_instruction` (by hand) and `generate` with `ordering` (random,
free of races); `fixtures` writes the streams of tests/vta_sim/data. `compare`, `damage` and `fuzz` meet the toolkit.
"""

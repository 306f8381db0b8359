"""Properties of the RTL's blocks, proved for all inputs by bounded model checking.

A module for each kind of block states its properties as `Case`s: to which depth they are checked, and for each property
a planted bug that the proof must find. `harness` makes and runs the proofs.
"""

"""The emitted Verilog in Icarus and Verilator, under cocotb.

`build` makes and runs simulations; `bench` and `scenarios` run inside of them. What a simulation is to do it reads from
a file of `launches`, and an `AxiMonitor` watches its memory port.
"""

"""The emitted Verilog as a program of Verilator's, with a memory and a host in C++: a yardstick for our own engines."""

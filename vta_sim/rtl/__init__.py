"""The accelerator's RTL on a simulated machine: memory behind its AXI ports, launches over its registers."""

"""The accelerator in Amaranth HDL: one file for each block of the VTA diagram."""

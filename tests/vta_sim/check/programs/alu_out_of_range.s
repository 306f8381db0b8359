load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
alu.max uop_end=3 iter_out=1 iter_in=2 src_factor_in=62
finish

load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
gemm uop_end=1 iter_out=1 iter_in=2
finish

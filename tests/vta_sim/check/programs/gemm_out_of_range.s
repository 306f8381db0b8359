load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
gemm uop_end=4 iter_out=2 iter_in=2 dst_factor_out=60 src_factor_in=61 wgt_factor_out=29
finish

load.wgt y_size=1 x_size=2 push_next
load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4 pop_prev
gemm uop_bgn=1 uop_end=2 iter_out=1 iter_in=1
load.wgt y_size=1 x_size=3 push_next
load.uop pop_prev
finish

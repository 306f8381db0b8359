load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
load.acc y_size=1 x_size=1 push_next
store.out dram_base=0x800 y_size=1 x_size=1 pop_prev push_prev
load.uop pop_next
finish

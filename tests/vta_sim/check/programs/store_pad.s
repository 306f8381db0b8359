load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
alu.add uop_end=1 iter_out=1 iter_in=1 use_imm push_next
store.out dram_base=0x800 y_size=1 x_size=1 x_pad_0=1 pop_prev push_prev
load.uop pop_next
finish

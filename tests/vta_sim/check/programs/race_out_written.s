load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
alu.add uop_end=1 iter_out=1 iter_in=1 use_imm push_next
store.out dram_base=0x800 y_size=1 x_size=2 pop_prev push_prev
alu.add uop_bgn=1 uop_end=2 iter_out=1 iter_in=1 use_imm
load.uop pop_next
finish

load.acc dram_base=0x200 y_size=1 x_size=1
load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
alu.add uop_end=1 iter_out=1 iter_in=1 use_imm
store.out sram_base=1 dram_base=0x803 y_size=1 x_size=1 push_prev
load.uop pop_next
finish

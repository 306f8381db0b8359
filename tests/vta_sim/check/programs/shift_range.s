load.uop dram_base=0x400 y_size=1 x_size=4 x_stride=4
alu.shr uop_end=1 iter_out=1 iter_in=1 use_imm imm=16
finish

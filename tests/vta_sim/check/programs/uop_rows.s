load.uop dram_base=0x400 y_size=2 x_size=1
finish

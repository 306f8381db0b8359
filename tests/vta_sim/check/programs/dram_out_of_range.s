load.acc dram_base=0xffffffff y_size=1 x_size=1
finish

load.acc sram_base=63 y_size=1 x_size=1 x_pad_1=1
finish

load.6 y_size=1 x_size=1
finish

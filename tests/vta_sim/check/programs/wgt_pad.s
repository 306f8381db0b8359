load.wgt y_size=1 x_size=1 y_pad_0=1 push_next
load.uop pop_prev
finish

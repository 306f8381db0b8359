store.acc y_size=1 x_size=1 push_prev
load.uop pop_next
finish

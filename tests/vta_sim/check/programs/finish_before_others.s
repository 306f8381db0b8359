load.inp
store.out
finish

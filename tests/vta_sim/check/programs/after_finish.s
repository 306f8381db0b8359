finish
load.uop
finish

"""From a network to programs: graph IR, tensor IR, and the back ends for the accelerator and for CPUs."""

"""More than one process: worlds, torchrun, nodes, preemption."""

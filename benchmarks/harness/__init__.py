"""What all benchmarks share: places, machine, peers, load, reports."""

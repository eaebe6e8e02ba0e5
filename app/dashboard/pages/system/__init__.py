"""What this node is and has: the machine, the nodes beside it, the engines, the settings."""

"""The device mesh, the sharding of arrays over its axes, and several hosts."""

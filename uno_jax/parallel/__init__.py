"""The mesh, and which axis of it an array is split over."""

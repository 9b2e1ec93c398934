"""A small federation in one process: private training on real images, and six attacks on how updates are combined."""

"""t2ikit: decide which text-to-image diffusion model to train, on which data, for how long, before the GPU money is
spent."""

__version__ = "0.1.0"

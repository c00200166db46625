//! What tch lacks: autocast, fused optimiser kernels, CUDA loading, RNG state, PyTorch checkpoint files.

//! The objective of white-box transformers: coding rates, their gradients, MSSA and ISTA, in ndarray.

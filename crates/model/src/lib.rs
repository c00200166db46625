//! CRATE and its comparator ViT on libtorch, white box by construction.

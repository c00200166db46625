//! Images as plain buffers: readers, transforms and a deterministic multi-threaded loader.

//! Compiles the C++ shim and lets doc-tests find libtorch.
fn main() {}

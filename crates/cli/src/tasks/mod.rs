//! What the engine can be given to train; each task joins a model, a loss and its measures.

pub mod classify;

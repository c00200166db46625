//! The training engine: schedules, optimisers, checkpoints, metrics, exact resume.

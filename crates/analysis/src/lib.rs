//! What a trained network does, layer by layer: measures, figures, reports.

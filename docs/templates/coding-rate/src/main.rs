//! How many nats it takes to code tokens to a given precision: spread over the plane, and lying on a line.

use ndarray::array;
use rate_reduction::{Precision, coding_rate};

fn main() -> rate_reduction::Result<()> {
    let precision = Precision::from_eps(0.5)?;
    let spread = array![[1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]]; // columns are tokens
    let line = array![[1.0, 1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]];
    println!("spread over the plane: {:.4} nats", coding_rate(spread.view(), precision)?);
    println!("on a line: {:.4} nats", coding_rate(line.view(), precision)?);
    Ok(())
}

//! The state of libtorch's random generators as bytes: what a checkpoint must hold so that dropout draws the same masks after a resume.

use tch::{Cuda, Device, Kind, Tensor};

use crate::error::{Error, Result, check};
use crate::ffi;

/// The states of the CPU generator and of each CUDA device's generator.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_extras::rng::RngState;
///
/// let state = RngState::capture()?;
/// let first = Tensor::rand([3], (Kind::Float, Device::Cpu));
/// state.restore()?;
/// assert_eq!(first, Tensor::rand([3], (Kind::Float, Device::Cpu)));
/// # Ok::<(), torch_extras::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RngState {
    /// The CPU generator's state, in libtorch's own layout.
    pub cpu: Vec<u8>,
    /// One state for each CUDA device, in the order of their numbers; empty without CUDA.
    pub cuda: Vec<Vec<u8>>,
}

impl RngState {
    /// Reads the generators' states.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn capture() -> Result<Self> {
        let devices = usize::try_from(Cuda::device_count()).unwrap_or(0);
        let cuda = (0..devices).map(|i| read(Device::Cuda(i))).collect::<Result<_>>()?;
        Ok(Self { cpu: read(Device::Cpu)?, cuda })
    }

    /// Puts the generators back. A CUDA state whose device is not there now is passed over: the run moved to a smaller machine.
    ///
    /// # Errors
    /// Bytes that are no generator state.
    pub fn restore(&self) -> Result<()> {
        let devices = usize::try_from(Cuda::device_count()).unwrap_or(0);
        write(Device::Cpu, &self.cpu)?;
        self.cuda.iter().take(devices).enumerate().try_for_each(|(i, state)| write(Device::Cuda(i), state))
    }
}

fn read(device: Device) -> Result<Vec<u8>> {
    let mut state = std::ptr::null_mut();
    // SAFETY: the pointer is to a live local; on success it holds a new tensor that is ours.
    let state = unsafe {
        check(ffi::te_rng_get(ffi::device_number(device)?, &mut state))?;
        Tensor::from_ptr(state)
    };
    Ok(Vec::<u8>::try_from(state)?)
}

fn write(device: Device, bytes: &[u8]) -> Result<()> {
    let shape = [i64::try_from(bytes.len()).unwrap_or(i64::MAX)];
    let state = Tensor::f_from_data_size(bytes, &shape, Kind::Uint8)?;
    // SAFETY: `state` lives through the call and is only read.
    check(unsafe { ffi::te_rng_set(ffi::device_number(device)?, state.as_ptr()) })
        .map_err(|e| Error::Argument(format!("{} bytes are no random state of {device:?}: {e}", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw() -> (Tensor, Tensor) {
        let cpu = (Kind::Float, Device::Cpu);
        // An odd number of normals leaves a second one cached in the generator: the state must hold that too.
        (Tensor::randn([3], cpu), Tensor::rand([5], cpu).dropout(0.5, true))
    }

    // One test, because the generator is the process's: two tests at a time would draw from each other's.
    #[test]
    fn restores_the_stream_and_refuses_garbage() -> Result<()> {
        tch::manual_seed(7);
        let _ = draw();
        let state = RngState::capture()?;
        let (a, b) = (draw(), draw());
        state.restore()?;
        assert_eq!((a, b), (draw(), draw()));

        state.restore()?;
        let before = RngState::capture()?;
        for bytes in [vec![], vec![0; 16], vec![255; state.cpu.len()]] {
            let message = RngState { cpu: bytes, cuda: vec![] }.restore().unwrap_err().to_string();
            assert!(message.contains("no random state"), "{message}");
        }
        assert_eq!(before, RngState::capture()?);
        Ok(())
    }
}

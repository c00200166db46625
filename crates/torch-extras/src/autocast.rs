//! Mixed precision: inside the guard's life libtorch runs matrix products in a 16-bit type and keeps sums and norms in float32.
//! Parameters and their gradients stay float32. tch's own `autocast` knows only float16 on CUDA and stays on after a panic.

use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::error::{Error, Result, check};
use crate::ffi;

/// libtorch's numbers of the two kinds; the shim asserts them.
const HALF: i32 = 5;
const BFLOAT16: i32 = 15;

/// Autocast for one device type, until the guard is dropped.
///
/// The state is libtorch's and belongs to the thread, so the guard cannot be sent to another one. Guards nest; drop them in reverse
/// order (as scopes do). The outermost drop forgets the cached 16-bit copies of the parameters, which the next optimiser step makes stale.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_extras::autocast::Autocast;
///
/// let a = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
/// let product = {
///     let _guard = Autocast::new(Device::Cpu, Kind::BFloat16, true)?;
///     a.matmul(&a)
/// };
/// assert_eq!(product.kind(), Kind::BFloat16);
/// assert_eq!(a.matmul(&a).kind(), Kind::Float);
/// # Ok::<(), torch_extras::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    device: i32,
    old_enabled: bool,
    old_kind: i32,
    not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches autocast to `kind` on (or, with `enabled` false, off) for the type of `device`.
    ///
    /// # Errors
    /// A kind other than `BFloat16` and `Half`, a device other than the CPU and CUDA.
    pub fn new(device: Device, kind: Kind, enabled: bool) -> Result<Self> {
        let kind = match kind {
            Kind::Half => HALF,
            Kind::BFloat16 => BFLOAT16,
            other => return Err(Error::Argument(format!("autocast to {other:?}: expected BFloat16 or Half"))),
        };
        let device = ffi::device_number(device)?;
        let (mut old_enabled, mut old_kind) = (false, 0);
        // SAFETY: both pointers are to live locals of the types that the shim writes.
        check(unsafe { ffi::te_autocast_enter(device, enabled, kind, &mut old_enabled, &mut old_kind) })?;
        Ok(Self { device, old_enabled, old_kind, not_send: PhantomData })
    }

    /// The kind that autocast computes in for the type of `device` in this thread; `None` where it is off.
    ///
    /// # Errors
    /// A device other than the CPU and CUDA; a kind that is neither `BFloat16` nor `Half`.
    pub fn kind(device: Device) -> Result<Option<Kind>> {
        let (mut enabled, mut kind) = (false, 0);
        // SAFETY: the pointers are to live locals.
        check(unsafe { ffi::te_autocast_state(ffi::device_number(device)?, &mut enabled, &mut kind) })?;
        match (enabled, kind) {
            (false, _) => Ok(None),
            (true, HALF) => Ok(Some(Kind::Half)),
            (true, BFLOAT16) => Ok(Some(Kind::BFloat16)),
            (true, other) => Err(Error::Argument(format!("autocast to libtorch's kind number {other}"))),
        }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: plain values, and the ones that the shim handed out. These setters fail only for device types that `new` refused.
        let _ = check(unsafe { ffi::te_autocast_leave(self.device, self.old_enabled, self.old_kind) });
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn product_kind() -> Kind {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        a.matmul(&a).kind()
    }

    #[test]
    fn nests_and_restores() -> Result<()> {
        assert_eq!(product_kind(), Kind::Float);
        let outer = Autocast::new(Device::Cpu, Kind::BFloat16, true)?;
        assert_eq!((product_kind(), Autocast::kind(Device::Cpu)?), (Kind::BFloat16, Some(Kind::BFloat16)));
        {
            let _half = Autocast::new(Device::Cpu, Kind::Half, true)?;
            assert_eq!(product_kind(), Kind::Half);
            let _off = Autocast::new(Device::Cpu, Kind::BFloat16, false)?;
            assert_eq!(product_kind(), Kind::Float);
        }
        assert_eq!(product_kind(), Kind::BFloat16);
        drop(outer);
        assert_eq!(Autocast::kind(Device::Cpu)?, None);
        assert_eq!(product_kind(), Kind::Float);
        Ok(())
    }

    #[test]
    fn a_panic_restores_the_state() -> Result<()> {
        let result = std::panic::catch_unwind(|| {
            let _guard = Autocast::new(Device::Cpu, Kind::BFloat16, true);
            std::panic::resume_unwind(Box::new("a panic that prints nothing"));
        });
        assert!(result.is_err());
        assert_eq!(Autocast::kind(Device::Cpu)?, None);
        Ok(())
    }

    #[test]
    fn gradients_stay_float32_and_follow_the_parameter() -> Result<()> {
        let mut w = Tensor::ones([3, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let forward = |w: &Tensor| -> Result<Tensor> {
            let _guard = Autocast::new(Device::Cpu, Kind::BFloat16, true)?;
            Ok(x.matmul(w).sum(Kind::Float))
        };
        let first = forward(&w)?;
        first.backward();
        assert_eq!(w.grad().kind(), Kind::Float);
        // A stale cached copy of w would give the old value again.
        tch::no_grad(|| {
            let _ = w.fill_(2.0);
        });
        assert_eq!(f64::try_from(forward(&w)?)?, 2.0 * f64::try_from(first)?);
        Ok(())
    }

    #[test]
    fn refuses_other_kinds_and_devices() {
        assert!(Autocast::new(Device::Cpu, Kind::Double, true).is_err());
        assert!(Autocast::new(Device::Mps, Kind::BFloat16, true).is_err());
    }
}

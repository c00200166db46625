//! Operations with a backward pass of one's own, what PyTorch calls a `torch.autograd.Function`.
//!
//! The forward pass is computed by the caller without a graph; [`attach`] then ties the outputs to the inputs and says how gradients go
//! back. That allows what autograd by itself does not: to keep less than the operations have read, to form again what is cheap, to merge
//! products.

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::error::{Error, Result, check};
use crate::ffi;

/// Gradients of the inputs, one each; `None` is zero.
pub type Gradients = std::result::Result<Vec<Option<Tensor>>, Box<dyn std::error::Error + Send + Sync>>;

type Backward = Box<dyn Fn(&[Tensor], &[Option<Tensor>]) -> Gradients + Send>;

/// Whether autograd records what is computed from these tensors.
///
/// # Errors
/// Undefined tensors.
pub fn recorded(inputs: &[&Tensor]) -> Result<bool> {
    let list: Vec<_> = inputs.iter().map(|t| t.as_ptr()).collect();
    let mut found = false;
    // SAFETY: an array of pointers to live tensors, and room for the answer.
    check(unsafe { ffi::te_recorded(list.len(), list.as_ptr(), &mut found) })?;
    Ok(found)
}

/// Ties `outputs`, computed from `inputs` without a graph, to them: in a backward pass `backward` is given the tensors `saved` and the gradients
/// of the outputs (`None` where none arrives) and returns those of the inputs. Without gradients to be computed nothing happens.
///
/// `saved` may hold inputs, outputs and anything else; only they are kept, `backward` itself should hold plain numbers. It runs without graph and
/// without autocast, and cannot be differentiated again.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_extras::function;
///
/// let x = Tensor::from_slice(&[1f32, -2.0]).set_requires_grad(true);
/// let y = tch::no_grad(|| x.relu());
/// function::attach("relu", &[&y], &[&x], &[&y], |saved, grads| {
///     let grad = grads[0].as_ref().map(|g| g * saved[0].gt(0.0));
///     Ok(vec![grad])
/// })?;
/// y.sum(Kind::Float).backward();
/// assert_eq!(Vec::<f32>::try_from(x.grad())?, [1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Undefined tensors, outputs that hang in a graph already. What `backward` reports, and a panic in it, become the error of the backward pass.
pub fn attach<F>(
    name: &'static str,
    outputs: &[&Tensor],
    inputs: &[&Tensor],
    saved: &[&Tensor],
    backward: F,
) -> Result<()>
where
    F: Fn(&[Tensor], &[Option<Tensor>]) -> Gradients + Send + 'static,
{
    let label = CString::new(name).map_err(|_| Error::Argument(format!("{name:?} holds a zero byte")))?;
    let list = |tensors: &[&Tensor]| tensors.iter().map(|t| t.as_ptr()).collect::<Vec<_>>();
    let (o, i, s) = (list(outputs), list(inputs), list(saved));
    let closure: Box<Backward> = Box::new(Box::new(backward));
    let closure = Box::into_raw(closure).cast::<c_void>();
    // SAFETY: three arrays of pointers to live tensors; the closure is a Box<Backward> made above, which the shim hands to `call` any number of
    // times and to `drop_closure` once. It may be called on another thread, hence `Send`; the shim's node never calls it on two at once.
    check(unsafe {
        ffi::te_attach(
            label.as_ptr(),
            o.len(),
            o.as_ptr(),
            i.len(),
            i.as_ptr(),
            s.len(),
            s.as_ptr(),
            call,
            drop_closure,
            closure,
        )
    })
}

/// The shim's way into the closure. Returns null or a message made by `strdup`.
unsafe extern "C" fn call(
    closure: *mut c_void,
    saved: ffi::List,
    saved_count: usize,
    grads: ffi::List,
    grad_count: usize,
    results: *mut *mut C_tensor,
    inputs: usize,
) -> *mut c_char {
    let work = || -> Gradients {
        // SAFETY: `closure` is the Box<Backward> that `attach` gave away, still alive.
        let backward = unsafe { &*closure.cast::<Backward>() };
        // SAFETY: the shim passes arrays of that many pointers to live tensors.
        let (saved, grads) = unsafe { (tensors(saved, saved_count), tensors(grads, grad_count)) };
        let saved: Vec<Tensor> = saved;
        let grads: Vec<Option<Tensor>> = grads.into_iter().map(|g| g.defined().then_some(g)).collect();
        let found = backward(&saved, &grads)?;
        match found.len() == inputs {
            true => Ok(found),
            false => Err(format!("{} gradients for {inputs} inputs: expected one each", found.len()).into()),
        }
    };
    let message = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(found)) => {
            for (i, mut gradient) in found.into_iter().enumerate().filter_map(|(i, g)| Some((i, g?))) {
                // SAFETY: `results` has room for `inputs` pointers, and `found` is as long; the shim takes the tensor over.
                unsafe { *results.add(i) = gradient.as_mut_ptr() };
                std::mem::forget(gradient);
            }
            return std::ptr::null_mut();
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|t| t.to_string());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
        }
    };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a NUL-terminated string; the shim frees the copy.
    unsafe { libc::strdup(message.as_ptr()) }
}

/// # Safety
/// `list` holds `count` pointers to live tensors.
unsafe fn tensors(list: ffi::List, count: usize) -> Vec<Tensor> {
    // SAFETY: as the caller promises; cloning a pointer makes a tensor of our own on the same memory.
    (0..count).map(|i| unsafe { Tensor::clone_from_ptr((*list.add(i)).cast_mut()) }).collect()
}

unsafe extern "C" fn drop_closure(closure: *mut c_void) {
    // SAFETY: the Box<Backward> of `attach`, given back once.
    drop(unsafe { Box::from_raw(closure.cast::<Backward>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::{Device, Kind};

    use super::*;
    use crate::autocast::Autocast;

    fn input() -> Tensor {
        Tensor::from_slice(&[0.5f64, -1.0, 2.0]).set_requires_grad(true)
    }

    /// x^3, whose backward pass gets the input back.
    fn cube(x: &Tensor) -> Result<Tensor> {
        let y = tch::no_grad(|| x.pow_tensor_scalar(3));
        attach("cube", &[&y], &[x], &[x], |saved, grads| {
            Ok(vec![grads[0].as_ref().map(|g| g * saved[0].square() * 3.0)])
        })?;
        Ok(y)
    }

    #[test]
    fn gradients_flow_through_and_add_up() -> Result<()> {
        let x = input();
        let y = cube(&(&x * 2.0))? + cube(&x)?;
        y.sum(Kind::Double).backward();
        let expected = x.detach().square() * 27.0; // d/dx (8 x^3 + x^3)
        assert!(x.grad().allclose(&expected, 1e-12, 0.0, false));
        Ok(())
    }

    #[test]
    fn without_gradients_nothing_is_kept() -> Result<()> {
        let x = input();
        assert!(!tch::no_grad(|| cube(&x))?.requires_grad());
        assert!(!cube(&x.detach())?.requires_grad());
        assert!(cube(&x)?.requires_grad());
        Ok(())
    }

    #[test]
    fn the_closure_is_freed_with_the_graph() -> Result<()> {
        let token = Arc::new(());
        for wants in [true, false] {
            let (x, held) = (input().set_requires_grad(wants), token.clone());
            let y = tch::no_grad(|| &x * 1.0);
            attach("identity", &[&y], &[&x], &[], move |_, grads| {
                let _ = &held;
                Ok(vec![grads[0].as_ref().map(Tensor::shallow_clone)])
            })?;
            assert_eq!(Arc::strong_count(&token), if wants { 2 } else { 1 });
            drop(y);
            assert_eq!(Arc::strong_count(&token), 1);
        }
        Ok(())
    }

    #[test]
    fn errors_and_panics_come_out_of_the_backward_pass() -> Result<()> {
        let failing: [fn() -> Gradients; 3] =
            [|| Err("no gradient today".into()), || std::panic::panic_any("a broken backward"), || Ok(vec![])];
        for (fail, text) in
            failing.into_iter().zip(["no gradient today", "a broken backward", "0 gradients for 1 inputs"])
        {
            let x = input();
            let y = tch::no_grad(|| &x * 1.0);
            attach("failing", &[&y], &[&x], &[], move |_, _| fail())?;
            let error = y.sum(Kind::Double).f_backward().unwrap_err().to_string();
            assert!(error.contains("failing") && error.contains(text), "{error}");
        }
        Ok(())
    }

    #[test]
    fn a_saved_tensor_that_was_changed_is_noticed() -> Result<()> {
        let x = input();
        let z = &x * 1.0;
        let y = cube(&z)?;
        let _ = tch::no_grad(|| z.shallow_clone().fill_(7.0));
        let error = y.sum(Kind::Double).f_backward().unwrap_err().to_string();
        assert!(error.contains("modified by an inplace operation"), "{error}");
        Ok(())
    }

    #[test]
    fn a_second_derivative_and_a_second_backward_are_refused() -> Result<()> {
        let x = input();
        let y = cube(&x)?.sum(Kind::Double);
        let error = Tensor::f_run_backward(&[&y], &[&x], true, true).unwrap_err().to_string();
        assert!(error.contains("cannot be differentiated twice"), "{error}");
        y.backward();
        assert!(y.f_backward().is_err());
        Ok(())
    }

    #[test]
    fn the_backward_pass_is_free_of_autocast() -> Result<()> {
        let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = tch::no_grad(|| &x * 1.0);
        attach("product", &[&y], &[&x], &[], |_, grads| Ok(vec![grads[0].as_ref().map(|g| g.matmul(g))]))?;
        let _cast = Autocast::new(Device::Cpu, Kind::BFloat16, true)?;
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad().kind(), Kind::Float);
        Ok(())
    }
}

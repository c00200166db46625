//! Declarations of the functions in `cpp/`. Nothing here is public; the safe modules check arguments before they call.

use libc::{c_char, c_void};
use tch::{Device, Tensor};
use torch_sys::C_tensor;

use crate::error::{Error, Result};

pub(crate) type List = *const *const C_tensor;

/// A backward pass: closure, saved tensors, gradients of the outputs, room for those of the inputs.
pub(crate) type Call =
    unsafe extern "C" fn(*mut c_void, List, usize, List, usize, *mut *mut C_tensor, usize) -> *mut c_char;

unsafe extern "C" {
    pub(crate) fn te_autocast_enter(
        d: i32,
        enabled: bool,
        kind: i32,
        old: *mut bool,
        old_kind: *mut i32,
    ) -> *mut c_char;
    pub(crate) fn te_autocast_leave(device: i32, old_enabled: bool, old_kind: i32) -> *mut c_char;
    pub(crate) fn te_autocast_state(device: i32, enabled: *mut bool, kind: *mut i32) -> *mut c_char;
    pub(crate) fn te_adamw(
        count: usize,
        params: List,
        grads: List,
        exp_avgs: List,
        exp_avg_sqs: List,
        step: i64,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> *mut c_char;
    pub(crate) fn te_lion(
        count: usize,
        params: List,
        grads: List,
        exp_avgs: List,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
    ) -> *mut c_char;
    pub(crate) fn te_global_norm(count: usize, list: List, norm: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn te_clip_by_norm(count: usize, list: List, norm: *const C_tensor, max: f64) -> *mut c_char;
    pub(crate) fn te_scale(count: usize, list: List, factor: f64) -> *mut c_char;
    pub(crate) fn te_clear_grads(count: usize, list: List) -> *mut c_char;
    pub(crate) fn te_rows_forward(
        x: *const C_tensor,
        normalise: bool,
        scale: *const C_tensor,
        shift: *const C_tensor,
        eps: f64,
        weight: *const C_tensor,
        transposed: bool,
        bias: *const C_tensor,
        residual: *const C_tensor,
        relu: bool,
        gradient_count: usize,
        g: List,
        h: List,
        out: *mut *mut C_tensor,
        mean: *mut *mut C_tensor,
        rstd: *mut *mut C_tensor,
        gradients: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_rows_backward(
        grad: *const C_tensor,
        out: *const C_tensor,
        weight: *const C_tensor,
        x: *const C_tensor,
        mean: *const C_tensor,
        rstd: *const C_tensor,
        scale: *const C_tensor,
        shift: *const C_tensor,
        add: *const C_tensor,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_coding_rates(
        w: *const C_tensor,
        heads: i64,
        gamma: f64,
        unit_norm: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_place(
        z: *const C_tensor,
        count: usize,
        bases: List,
        heads: *const i64,
        eps_squared: f64,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_attention_alignment(
        input: *const C_tensor,
        uz: *const C_tensor,
        added: *const C_tensor,
        u: *const C_tensor,
        heads: i64,
        eps_squared: f64,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_sparsity_alignment(
        h: *const C_tensor,
        end: *const C_tensor,
        lambda: f64,
        eps_squared: f64,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_activity(
        code: *const C_tensor,
        bounds: *const f64,
        bound_count: i64,
        by_atom: *mut *mut C_tensor,
        by_size: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_nonzero(z: *const C_tensor, found: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn te_with_transpose(
        a: *const C_tensor,
        alpha: f64,
        b: *const C_tensor,
        beta: f64,
        diagonal: f64,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_gram_step(
        d: *const C_tensor,
        alpha: f64,
        beta: f64,
        diagonal: f64,
        coarse: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_weight_gradient(
        g: *const C_tensor,
        h: *const C_tensor,
        turned: bool,
        coarse: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_rng_get(device: i32, state: *mut *mut C_tensor) -> *mut c_char;
    pub(crate) fn te_rng_set(device: i32, state: *const C_tensor) -> *mut c_char;
    pub(crate) fn te_subspace_attention(
        w: *const C_tensor,
        heads: i64,
        scale: f64,
        out: *mut *mut C_tensor,
        log_sum_exp: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_subspace_attention_backward(
        grad: *const C_tensor,
        w: *const C_tensor,
        out: *const C_tensor,
        log_sum_exp: *const C_tensor,
        heads: i64,
        scale: f64,
        gradient: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_pooled_attention(
        x: *const C_tensor,
        queries: *const C_tensor,
        scale: *const C_tensor,
        shift: *const C_tensor,
        eps: f64,
        factor: f64,
        out: *mut *mut C_tensor,
        log_sum_exp: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_pooled_attention_backward(
        grad: *const C_tensor,
        x: *const C_tensor,
        queries: *const C_tensor,
        scale: *const C_tensor,
        shift: *const C_tensor,
        eps: f64,
        factor: f64,
        out: *const C_tensor,
        log_sum_exp: *const C_tensor,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_patches(
        images: *const C_tensor,
        high: i64,
        broad: i64,
        eps: f64,
        halves: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_tokens(
        x: *const C_tensor,
        scale: *const C_tensor,
        shift: *const C_tensor,
        eps: f64,
        first: *const C_tensor,
        positions: *const C_tensor,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_tokens_backward(
        grad: *const C_tensor,
        x: *const C_tensor,
        mean: *const C_tensor,
        rstd: *const C_tensor,
        scale: *const C_tensor,
        shift: *const C_tensor,
        found: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn te_recorded(count: usize, inputs: List, found: *mut bool) -> *mut c_char;
    pub(crate) fn te_attach(
        label: *const c_char,
        output_count: usize,
        outputs: List,
        input_count: usize,
        inputs: List,
        saved_count: usize,
        saved: List,
        call: Call,
        drop: unsafe extern "C" fn(*mut c_void),
        closure: *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn te_cuda_peak_memory(index: i32, bytes: *mut u64) -> *mut c_char;
}

/// The at::Tensor pointers of a list, borrowed for the time of a call.
pub(crate) fn pointers(list: &[Tensor]) -> Vec<*const C_tensor> {
    list.iter().map(Tensor::as_ptr).collect()
}

/// The shim's number for a device: -1 is the CPU, others are CUDA indices.
pub(crate) fn device_number(device: Device) -> Result<i32> {
    match device {
        Device::Cpu => Ok(-1),
        Device::Cuda(index) => i8::try_from(index)
            .map(i32::from)
            .map_err(|_| Error::Argument(format!("CUDA device {index} is out of range"))),
        other => Err(Error::Argument(format!("device {other:?} is not supported: expected the CPU or a CUDA device"))),
    }
}

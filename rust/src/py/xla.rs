//! Attention as XLA calls it: functions of XLA's C interface for custom calls, handed to Python as capsules.
//!
//! The structs repeat `xla/ffi/api/c_api.h` of jaxlib, whose interface only ever grows at the end of a struct; every
//! struct says its size. `unsafe` is of three kinds: reading what XLA's pointers point to, which is valid for the
//! length of a call and shared with nobody; seeing buffers as slices of the dtype and the number of elements that XLA
//! states, after both were compared with what is expected; and calling the function that makes an error.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::attention::{Gradients, Inputs, Kind, Shape, backward, forward};
use crate::error::{Error, Result};

// --- The C interface --------------------------------------------------------------------------------------------------

#[repr(C)]
struct Extension {
    struct_size: usize,
    kind: i32,
    next: *mut Extension,
}

const METADATA: i32 = 1;

#[repr(C)]
struct ApiVersion {
    struct_size: usize,
    extension_start: *mut Extension,
    major: i32,
    minor: i32,
}

/// The version that the structs here are of.
const VERSION: (i32, i32) = (0, 3);

#[repr(C)]
struct Metadata {
    struct_size: usize,
    api_version: ApiVersion,
    traits: u32,
}

#[repr(C)]
struct MetadataExtension {
    base: Extension,
    metadata: *mut Metadata,
}

#[repr(C)]
struct ErrorArguments {
    struct_size: usize,
    extension_start: *mut Extension,
    message: *const c_char,
    code: i32,
}

const INVALID_ARGUMENT: i32 = 3;

#[repr(C)]
struct Api {
    struct_size: usize,
    extension_start: *mut Extension,
    version: ApiVersion,
    internal: *const c_void,
    make_error: unsafe extern "C" fn(*mut ErrorArguments) -> *mut c_void,
}

/// Arguments, and results: both have this form.
#[repr(C)]
struct Buffers {
    struct_size: usize,
    extension_start: *mut Extension,
    size: i64,
    types: *const i32,
    found: *const *const Buffer,
}

#[repr(C)]
struct Buffer {
    struct_size: usize,
    extension_start: *mut Extension,
    dtype: i32,
    data: *mut c_void,
    rank: i64,
    dims: *const i64,
}

#[repr(C)]
pub(super) struct CallFrame {
    struct_size: usize,
    extension_start: *mut Extension,
    api: *const Api,
    context: *mut c_void,
    stage: i32,
    arguments: Buffers,
    results: Buffers,
}

// --- Buffers as slices ------------------------------------------------------------------------------------------------

/// A dtype of XLA as Rust has it.
trait Element: Copy {
    const DTYPE: i32;
    const NAME: &str;
}

impl Element for f32 {
    const DTYPE: i32 = 11;
    const NAME: &str = "float32";
}

impl Element for i32 {
    const DTYPE: i32 = 4;
    const NAME: &str = "int32";
}

impl Buffers {
    /// The `idx`-th buffer's shape and elements.
    fn of<T: Element>(&self, idx: usize) -> Result<(&[i64], *mut T, usize)> {
        if i64::try_from(idx).map_or(true, |idx| idx >= self.size) {
            return Err(Error::Argument(format!("attention: array {idx} is missing, there are {}", self.size)));
        }
        // SAFETY: XLA gives as many buffers as `size` says, with as many dimensions as `rank` says.
        let (buffer, dims) = unsafe {
            let buffer = &**self.found.add(idx);
            let rank = usize::try_from(buffer.rank).unwrap_or(0);
            (buffer, if rank == 0 { &[][..] } else { slice::from_raw_parts(buffer.dims, rank) })
        };
        if buffer.dtype != T::DTYPE {
            let message = format!("attention: array {idx} must be {}, it has XLA's dtype {}", T::NAME, buffer.dtype);
            return Err(Error::Argument(message));
        }
        Ok((dims, buffer.data.cast(), dims.iter().map(|&size| usize::try_from(size).unwrap_or(0)).product()))
    }

    fn read<T: Element>(&self, idx: usize) -> Result<&[T]> {
        let (_, data, size) = self.of(idx)?;
        // SAFETY: the buffer holds `size` elements of this dtype, and nobody writes to an argument.
        Ok(if size == 0 { &[] } else { unsafe { slice::from_raw_parts(data, size) } })
    }

    /// A result; each may be asked for once only.
    #[allow(clippy::mut_from_ref)]
    fn write<T: Element>(&self, idx: usize) -> Result<&mut [T]> {
        let (_, data, size) = self.of(idx)?;
        // SAFETY: the buffer holds `size` elements of this dtype; results overlap neither each other nor arguments,
        // since none is declared to share its memory, and each is asked for once.
        Ok(if size == 0 { &mut [] } else { unsafe { slice::from_raw_parts_mut(data, size) } })
    }

    fn shape<T: Element, const N: usize>(&self, idx: usize) -> Result<[usize; N]> {
        let (dims, ..) = self.of::<T>(idx)?;
        let sizes: Vec<usize> = dims.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        let found = sizes.len();
        let message = || Error::Argument(format!("attention: array {idx} must have {N} axes, it has {found}"));
        sizes.try_into().map_err(|_| message())
    }
}

// --- The calls --------------------------------------------------------------------------------------------------------

/// Arguments 0 to 12 of both calls, in the order of `native.py`.
fn inputs(arguments: &Buffers) -> Result<Inputs<'_>> {
    let [contexts, queries, heads, width] = arguments.shape::<f32, 4>(2)?;
    let [_, cells, _, _] = arguments.shape::<f32, 4>(3)?;
    let [_, _, parents] = arguments.shape::<i32, 3>(11)?;
    let [foreign_keys, _] = arguments.shape::<f32, 2>(6)?;
    let number = arguments.read::<i32>(0)?.first().copied().unwrap_or(-1);
    let kind =
        Kind::from_number(number).ok_or_else(|| Error::Argument(format!("attention: there is no kind {number}")))?;
    Ok(Inputs {
        kind,
        lookback: arguments.read::<f32>(1)?.first().copied().unwrap_or(f32::INFINITY),
        shape: Shape { contexts, queries, cells, heads, width, parents, foreign_keys },
        q: arguments.read(2)?,
        k: arguments.read(3)?,
        v: arguments.read(4)?,
        bias: arguments.read(5)?,
        link_bias: arguments.read(6)?,
        asking: arguments.read(7)?,
        row: arguments.read(8)?,
        column: arguments.read(9)?,
        age: arguments.read(10)?,
        parents: arguments.read(11)?,
        parent_keys: arguments.read(12)?,
    })
}

fn call_forward(arguments: &Buffers, results: &Buffers) -> Result<()> {
    forward(&inputs(arguments)?, results.write(0)?, results.write(1)?)
}

fn call_backward(arguments: &Buffers, results: &Buffers) -> Result<()> {
    let gradients = Gradients {
        q: results.write(0)?,
        k: results.write(1)?,
        v: results.write(2)?,
        bias: results.write(3)?,
        link_bias: results.write(4)?,
    };
    backward(&inputs(arguments)?, arguments.read(13)?, arguments.read(14)?, arguments.read(15)?, gradients)
}

/// Answers what XLA asks: the version of the interface, or the results; null where all is well, else an error.
///
/// # Safety
/// `frame` is what XLA calls a handler with.
unsafe fn answer(frame: *mut CallFrame, call: fn(&Buffers, &Buffers) -> Result<()>) -> *mut c_void {
    // SAFETY: the frame and what it points to are valid for the length of this call.
    let (frame, extension) = unsafe { (&*frame, (*frame).extension_start) };
    // SAFETY: as above; an extension of this kind is the beginning of a `MetadataExtension`.
    if !extension.is_null() && unsafe { (*extension).kind } == METADATA {
        let version = ApiVersion {
            struct_size: size_of::<ApiVersion>(),
            extension_start: ptr::null_mut(),
            major: VERSION.0,
            minor: VERSION.1,
        };
        // SAFETY: as above; nobody else holds the metadata.
        unsafe {
            let metadata = &mut *(*extension.cast::<MetadataExtension>()).metadata;
            (metadata.api_version, metadata.traits) = (version, 0);
        }
        return ptr::null_mut();
    }
    let done = catch_unwind(AssertUnwindSafe(|| call(&frame.arguments, &frame.results)));
    let message = match done {
        Ok(Ok(())) => return ptr::null_mut(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "attention: the native core panicked; this is a defect of Tributary".to_owned(),
    };
    let message = CString::new(message).unwrap_or_default();
    let mut arguments = ErrorArguments {
        struct_size: size_of::<ErrorArguments>(),
        extension_start: ptr::null_mut(),
        message: message.as_ptr(),
        code: INVALID_ARGUMENT,
    };
    // SAFETY: XLA copies the message before the call returns.
    unsafe { ((*frame.api).make_error)(&raw mut arguments) }
}

unsafe extern "C" fn attention_forward(frame: *mut CallFrame) -> *mut c_void {
    // SAFETY: only XLA calls this.
    unsafe { answer(frame, call_forward) }
}

unsafe extern "C" fn attention_backward(frame: *mut CallFrame) -> *mut c_void {
    // SAFETY: only XLA calls this.
    unsafe { answer(frame, call_backward) }
}

/// The handlers of attention by name, as `jax.ffi.register_ffi_target` takes them.
#[pyfunction]
pub(super) fn xla_handlers(py: Python<'_>) -> PyResult<Vec<(&'static str, Bound<'_, PyCapsule>)>> {
    let handlers: [(_, unsafe extern "C" fn(*mut CallFrame) -> *mut c_void); 2] =
        [("tributary_attention", attention_forward), ("tributary_attention_backward", attention_backward)];
    let capsule = |(name, handler): (&'static str, unsafe extern "C" fn(*mut CallFrame) -> *mut c_void)| {
        // SAFETY: a function of this module lives as long as the process.
        let capsule = unsafe { raw_capsule(py, handler as *mut c_void) };
        capsule.map(|capsule| (name, capsule))
    };
    handlers.into_iter().map(capsule).collect()
}

/// A capsule of the pointer itself, with the name that JAX asks for.
///
/// # Safety
/// The pointer is not null and stays valid.
unsafe fn raw_capsule(py: Python<'_>, pointer: *mut c_void) -> PyResult<Bound<'_, PyCapsule>> {
    // SAFETY: as the caller says; the name is a constant; a null result is turned into the exception that was set.
    unsafe {
        let capsule = pyo3::ffi::PyCapsule_New(pointer, c"xla._CUSTOM_CALL_TARGET".as_ptr(), None);
        Ok(Bound::from_owned_ptr_or_err(py, capsule)?.cast_into_unchecked())
    }
}

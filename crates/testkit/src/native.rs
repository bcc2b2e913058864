//! Runs a case on the host's processor.
//!
//! Code and data are mapped at the addresses of [`layout`]. A piece of assembly loads all
//! registers from a block at a fixed address and jumps to the case, which ends in an exception:
//! INT3 at its end, or the fault that it raises. The signal handler copies the registers from the
//! signal frame and sends the thread back.

mod signal;
mod thunk;

use std::io;
use std::ptr::copy_nonoverlapping;
use std::sync::{Mutex, MutexGuard};

use crate::layout::{
    AREA, AREA_SIZE, CODE, CODE_SIZE, DATA, HOST_BLOCK, HOST_BLOCK_SIZE, IMAGE_SIZE, ISLAND, PAGE,
    READ_ONLY,
};
use crate::state::{Outcome, State};
use thunk::{Block, block};

static OWNER: Mutex<bool> = Mutex::new(false);

/// The right to run cases on the host's processor; one at a time in a process.
#[derive(Debug)]
pub struct Native {
    _owner: MutexGuard<'static, bool>,
}

impl Native {
    /// Maps code and data and takes over the signals of faults, when no one else has the right.
    ///
    /// # Errors
    /// The host's error where the addresses are taken, or [`io::ErrorKind::Unsupported`] on a
    /// processor without AVX or FSGSBASE.
    pub fn new() -> io::Result<Self> {
        let mut owner = OWNER.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: AT_HWCAP2 is always readable.
        let fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & 2 != 0;
        if !fsgsbase || !std::arch::is_x86_feature_detected!("avx") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !*owner {
            use libc::{PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE};
            let rw = PROT_READ | PROT_WRITE;
            map(CODE, CODE_SIZE, rw | PROT_EXEC)?;
            map(HOST_BLOCK, HOST_BLOCK_SIZE, rw)?;
            map(AREA, AREA_SIZE, rw)?;
            // SAFETY: the pages were just mapped; nothing refers to them.
            unsafe {
                std::ptr::write_bytes(AREA as *mut u8, 0, AREA_SIZE as usize);
                for (start, protection) in [
                    (AREA, PROT_NONE),
                    (READ_ONLY, PROT_READ),
                    (READ_ONLY + PAGE, PROT_NONE),
                    (ISLAND + PAGE, PROT_NONE),
                ] {
                    libc::mprotect(start as *mut libc::c_void, PAGE as usize, protection);
                }
            }
            *owner = true;
        }
        signal::install();
        Ok(Self { _owner: owner })
    }

    /// Writes code.
    ///
    /// # Panics
    /// If `bytes` do not lie within the code area.
    pub fn write_code(&mut self, address: u64, bytes: &[u8]) {
        assert!(address >= CODE && address + bytes.len() as u64 <= CODE + CODE_SIZE);
        // SAFETY: the range lies in the code area, which is mapped writable.
        unsafe { copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    }

    /// Sets all data: the image from [`DATA`] on, of which absent pages are left out. The
    /// read-only page is set with `read_only` alone, because that takes system calls.
    ///
    /// # Panics
    /// If the image has not [`IMAGE_SIZE`] bytes.
    pub fn write_data(&mut self, image: &[u8], read_only: bool) {
        assert_eq!(image.len(), IMAGE_SIZE);
        let page = PAGE as usize;
        // SAFETY: the ranges are mapped, and no reference to them exists.
        unsafe {
            copy_nonoverlapping(image.as_ptr(), DATA as *mut u8, 3 * page);
            let island = (ISLAND - DATA) as usize;
            copy_nonoverlapping(image[island..].as_ptr(), ISLAND as *mut u8, page);
            if read_only {
                let start = READ_ONLY as *mut libc::c_void;
                libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE);
                copy_nonoverlapping(image[3 * page..].as_ptr(), start.cast(), page);
                libc::mprotect(start, page, libc::PROT_READ);
            }
        }
    }

    /// Copies all data that can be written.
    ///
    /// # Panics
    /// If the image has not [`IMAGE_SIZE`] bytes.
    pub fn read_data(&self, image: &mut [u8]) {
        assert_eq!(image.len(), IMAGE_SIZE);
        let page = PAGE as usize;
        let island = (ISLAND - DATA) as usize;
        // SAFETY: the ranges are mapped, and no reference to them exists.
        unsafe {
            copy_nonoverlapping(DATA as *const u8, image.as_mut_ptr(), 4 * page);
            copy_nonoverlapping(ISLAND as *const u8, image[island..].as_mut_ptr(), page);
        }
    }

    /// Runs from `state` to the first exception; with `compatibility`, as 32-bit code.
    pub fn run(&mut self, state: &State, compatibility: bool) -> Outcome {
        // SAFETY: the block is mapped for as long as the process lives, and `self` owns it.
        unsafe {
            let block: *mut Block = block();
            (*block).input = *state;
            // The kernel's copy of the flags must have interrupts enabled; the rest is the case's.
            (*block).input.rflags |= 0x202;
            thunk::enter(compatibility);
            Outcome {
                state: (*block).output,
                vector: (*block).vector as u8,
                error_code: (*block).error_code as u32,
                address: (*block).address,
            }
        }
    }
}

fn map(start: u64, size: u64, protection: i32) -> io::Result<()> {
    // SAFETY: a new mapping that replaces nothing.
    let at = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            size as usize,
            protection,
            libc::MAP_PRIVATE
                | libc::MAP_ANONYMOUS
                | libc::MAP_FIXED_NOREPLACE
                | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if at as u64 != start {
        // SAFETY: the mapping was just made.
        unsafe { libc::munmap(at, size as usize) };
        return Err(io::ErrorKind::AddrInUse.into());
    }
    Ok(())
}

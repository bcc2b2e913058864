//! [`Env`] of a real virtual processor: memory through the TLB and the page walk, devices inside
//! the engine, exits for the others.

use std::arch::asm;
use std::ptr::copy_nonoverlapping;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use iced_x86::Code;
use ringfence_engine::{Clock, Counted, Exit, LocalDevices};
use ringfence_x86::{cr, flags};

use super::phys::Phys;
use super::tlb::Tlb;
use super::walk::{Access, walk};
use crate::context::{Context, TlbEntry};
use crate::cpu::Cpu;
use crate::env::{Env, Flush, Privilege, Trap};
use crate::interp::breakpoints;
use crate::interp::system::cpuid::{Availability, CpuidModel};
use crate::paravirt::Paravirt;

/// A device access that the instruction under way has made already.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Completed {
    access: Exit,
    value: u64,
}

/// What the runtime must do after an instruction, before translated code runs again.
#[derive(Debug, Default)]
pub struct Pending {
    /// Drop branch targets of all pages, or of all that are not global.
    pub flush: Option<Flush>,
    /// Drop branch targets of these linear pages.
    pub pages: Vec<u64>,
    /// Ranges of physical memory with translated code that were written to.
    pub code_writes: Vec<(u64, u64)>,
}

/// Memory, devices and time of one virtual processor.
#[derive(Debug)]
pub struct World {
    context: *mut Context,
    /// Physical memory.
    pub phys: Phys,
    /// The TLB's book-keeping.
    pub tlb: Tlb,
    /// Interrupt hardware.
    pub devices: Arc<dyn LocalDevices>,
    /// What CPUID says.
    pub cpuid: Arc<CpuidModel>,
    /// What a guest that knows it is virtualized asked for.
    pub paravirt: Paravirt,
    /// Left to do by the runtime.
    pub pending: Pending,
    /// Memory-mapped and port accesses, for the statistics.
    pub device_accesses: u64,
    clock: Arc<Clock>,
    /// State of the generator of a deterministic machine.
    random: u64,
    /// A repeated instruction paused: it is not complete.
    paused: bool,
    id: u32,
    completed: Vec<Completed>,
    cursor: usize,
    /// The string access that the machine has answered, and the bytes of an input.
    string: Option<Exit>,
    string_bytes: Vec<u8>,
    fetch: Option<(u64, bool, *const u8)>,
    /// A debugger looks: devices must not notice.
    peeking: bool,
}

// SAFETY: the raw pointers lead to memory that the owner of the world keeps alive and that only
// the thread running this processor uses.
unsafe impl Send for World {}

impl World {
    /// The world of processor `id` whose TLB is in `context`, and whose bit in the words of guest
    /// memory is `bit`.
    ///
    /// # Safety
    /// `context` must stay valid for as long as the world is used.
    pub unsafe fn new(
        id: u32,
        context: *mut Context,
        phys: Phys,
        devices: Arc<dyn LocalDevices>,
        clock: Arc<Clock>,
        cpuid: Arc<CpuidModel>,
        bit: u64,
    ) -> Self {
        Self {
            context,
            paravirt: Paravirt::new(Arc::clone(phys.memory()), Arc::clone(&clock)),
            phys,
            tlb: Tlb::new(bit),
            devices,
            cpuid,
            pending: Pending::default(),
            device_accesses: 0,
            random: clock.counted().map_or(0, Counted::seed),
            paused: false,
            clock,
            id,
            completed: Vec::new(),
            cursor: 0,
            string: None,
            string_bytes: Vec::new(),
            fetch: None,
            peeking: false,
        }
    }

    /// An instruction begins, anew or again.
    pub fn begin_instruction(&mut self) {
        self.cursor = 0;
    }

    /// The instruction retired or faulted: its device accesses are history.
    pub fn end_instruction(&mut self) {
        self.completed.clear();
        self.cursor = 0;
        self.string = None;
    }

    /// The machine answered the exit `access`.
    pub fn complete(&mut self, access: Exit, value: u64) {
        if let Exit::PortInString { .. } | Exit::PortOutString { .. } = access {
            self.string = Some(access);
            return;
        }
        self.completed.push(Completed { access, value });
    }

    /// The bytes of the string input that comes to be completed.
    pub fn answer_string(&mut self, data: &[u8]) {
        self.string_bytes.clear();
        self.string_bytes.extend_from_slice(data);
    }

    /// Whether the last instruction was a repeated one that paused.
    pub fn take_paused(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    /// Forgets the page of the last fetch.
    pub fn forget_fetch(&mut self) {
        self.fetch = None;
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn entry(&self, class: usize, linear: u64) -> TlbEntry {
        // SAFETY: the context is valid by the contract of `new`, and the index is in range.
        unsafe { (*self.context).tlb[class][TlbEntry::index(linear)] }
    }

    /// Host address for an access that stays within one page; `Err(gpa)` where it is a device's.
    fn host(
        &mut self,
        cpu: &Cpu,
        linear: u64,
        size: usize,
        write: bool,
        privilege: Privilege,
    ) -> Result<Result<*mut u8, u64>, Trap> {
        let user = cpu.cpl == 3 && privilege == Privilege::Current;
        let implicit = privilege == Privilege::System;
        let class = class_of(cpu, user, implicit);
        let entry = self.entry(class, linear);
        let tag = if write {
            entry.tag_write
        } else {
            entry.tag_read
        };
        if tag ^ linear < 4096 {
            return Ok(Ok((entry.host + (linear & 0xfff)) as *mut u8));
        }
        let access = Access {
            write,
            fetch: false,
            user,
            implicit,
        };
        let translation =
            walk(cpu, &self.phys, linear, access).map_err(|code| Trap::page_fault(linear, code))?;
        let Some(place) = self.phys.place(translation.gpa) else {
            return Ok(Err(translation.gpa));
        };
        if write && !place.ram {
            return Ok(Err(translation.gpa));
        }
        // SAFETY: valid by the contract of `new`; no other reference to the TLB lives here.
        let context = unsafe { &mut *self.context };
        if !breakpoints::on_page(cpu, linear, false) {
            self.tlb
                .fill(context, class, linear, &translation, &place, write);
        }
        if write && place.holders.load(Ordering::SeqCst) != 0 {
            self.pending
                .code_writes
                .push((translation.gpa, translation.gpa + size as u64));
        }
        Ok(Ok(place.host))
    }

    /// Calls `each(self, linear, offset, count)` for the parts of a range, page by page.
    fn pages(
        &mut self,
        cpu: &Cpu,
        linear: u64,
        size: usize,
        mut each: impl FnMut(&mut Self, u64, usize, usize) -> Result<(), Trap>,
    ) -> Result<(), Trap> {
        let mut done = 0;
        while done < size {
            let mut at = linear.wrapping_add(done as u64);
            if !cpu.mode64() {
                at &= 0xffff_ffff;
            }
            let count = (size - done).min(0x1000 - (at as usize & 0xfff));
            each(self, at, done, count)?;
            done += count;
        }
        Ok(())
    }

    /// One access to a device: answered from the log, by the engine's devices, or by an exit.
    fn device(
        &mut self,
        access: Exit,
        inline: impl FnOnce(&dyn LocalDevices, u32) -> Option<u64>,
    ) -> Result<u64, Trap> {
        if let Some(done) = self.completed.get(self.cursor) {
            if done.access == access {
                self.cursor += 1;
                return Ok(done.value);
            }
            // The instruction took another way than before: what was answered no longer fits.
            self.completed.truncate(self.cursor);
        }
        self.device_accesses += 1;
        let Some(value) = inline(&*self.devices, self.id) else {
            return Err(Trap::Exit(access));
        };
        self.completed.push(Completed { access, value });
        self.cursor += 1;
        Ok(value)
    }

    fn mmio_read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Trap> {
        for (chunk, address) in out.chunks_mut(8).zip((address..).step_by(8)) {
            let size = chunk.len() as u8;
            let access = Exit::MmioRead { address, size };
            let value = self.device(access, |d, id| d.mmio_read(id, address, size))?;
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    /// Fetches code from a device, in aligned words as a bus does. Who only looks reads ones.
    fn device_code(&mut self, address: u64, out: &mut [u8]) -> Result<(), Trap> {
        let mut done = 0;
        while done < out.len() {
            let at = address + done as u64;
            let skip = (at & 7) as usize;
            let count = (out.len() - done).min(8 - skip);
            let mut word = [0xff; 8];
            if !self.peeking {
                self.mmio_read(at & !7, &mut word)?;
            }
            out[done..done + count].copy_from_slice(&word[skip..skip + count]);
            done += count;
        }
        Ok(())
    }

    /// As [`Env::fetch`], for a look from outside: devices are left alone.
    pub fn peek(&mut self, cpu: &mut Cpu, linear: u64, out: &mut [u8; 15]) -> Option<usize> {
        self.peeking = true;
        let count = self.fetch(cpu, linear, out).ok();
        self.peeking = false;
        count
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) -> Result<(), Trap> {
        for (chunk, address) in data.chunks(8).zip((address..).step_by(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let (value, size) = (u64::from_le_bytes(bytes), chunk.len() as u8);
            let access = Exit::MmioWrite {
                address,
                size,
                value,
            };
            self.device(access, |d, id| {
                d.mmio_write(id, address, size, value).then_some(0)
            })?;
        }
        Ok(())
    }
}

impl Env for World {
    fn fetch(&mut self, cpu: &mut Cpu, linear: u64, out: &mut [u8; 15]) -> Result<usize, Trap> {
        let user = cpu.cpl == 3;
        let mut done = 0;
        while done < out.len() {
            let mut at = linear.wrapping_add(done as u64);
            if !cpu.mode64() {
                at &= 0xffff_ffff;
            }
            let page = at & !0xfff;
            let host = match self.fetch {
                Some((cached, class, host)) if cached == page && class == user => host,
                _ => {
                    let access = Access {
                        write: false,
                        fetch: true,
                        user,
                        implicit: false,
                    };
                    let translation = match walk(cpu, &self.phys, at, access) {
                        Ok(translation) => translation,
                        Err(_) if done > 0 => return Ok(done),
                        Err(code) => return Err(Trap::page_fault(at, code)),
                    };
                    let Some(place) = self.phys.place(translation.gpa & !0xfff) else {
                        // Code in a device, say in flash memory that is being programmed.
                        let count = (out.len() - done).min(0x1000 - (at as usize & 0xfff));
                        self.device_code(translation.gpa, &mut out[done..done + count])?;
                        done += count;
                        continue;
                    };
                    self.fetch = Some((page, user, place.host));
                    place.host.cast_const()
                }
            };
            let offset = at as usize & 0xfff;
            let count = (out.len() - done).min(0x1000 - offset);
            // SAFETY: `count` bytes from `offset` lie in the page at `host`.
            unsafe { copy_nonoverlapping(host.add(offset), out[done..].as_mut_ptr(), count) };
            done += count;
        }
        Ok(done)
    }

    fn check_fetch(&mut self, cpu: &mut Cpu, linear: u64) -> Result<(), Trap> {
        let access = Access {
            write: false,
            fetch: true,
            user: cpu.cpl == 3,
            implicit: false,
        };
        walk(cpu, &self.phys, linear, access)
            .map(|_| ())
            .map_err(|code| Trap::page_fault(linear, code))
    }

    fn load(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        out: &mut [u8],
        privilege: Privilege,
    ) -> Result<(), Trap> {
        let size = out.len();
        self.pages(cpu, linear, size, |world, at, offset, count| {
            let part = &mut out[offset..offset + count];
            match world.host(cpu, at, count, false, privilege)? {
                // SAFETY: `pages` stays within the page that `host` translated.
                Ok(host) => unsafe { copy_in(host, part) },
                Err(gpa) => world.mmio_read(gpa, part)?,
            }
            Ok(())
        })?;
        if privilege == Privilege::Current {
            breakpoints::note(cpu, breakpoints::Access::Read, linear, size as u64);
        }
        Ok(())
    }

    fn store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        data: &[u8],
        privilege: Privilege,
    ) -> Result<(), Trap> {
        let crosses = (linear & 0xfff) as usize + data.len() > 0x1000;
        if crosses {
            self.check_store(cpu, linear, data.len(), privilege)?;
        }
        // Devices first: when one exits, the instruction is executed again from its loads, which
        // must not find its own result in memory.
        let passes: &[bool] = if crosses { &[true, false] } else { &[false] };
        for &devices in passes {
            self.pages(cpu, linear, data.len(), |world, at, offset, count| {
                let part = &data[offset..offset + count];
                match world.host(cpu, at, count, true, privilege)? {
                    // SAFETY: `pages` stays within the page that `host` translated.
                    Ok(host) if !devices => unsafe { copy_out(part, host) },
                    Err(gpa) if devices || !crosses => world.mmio_write(gpa, part)?,
                    _ => {}
                }
                Ok(())
            })?;
        }
        if privilege == Privilege::Current {
            breakpoints::note(cpu, breakpoints::Access::Write, linear, data.len() as u64);
        }
        Ok(())
    }

    fn check_store(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        privilege: Privilege,
    ) -> Result<(), Trap> {
        self.pages(cpu, linear, size, |world, at, _, count| {
            world.host(cpu, at, count, true, privilege).map(|_| ())
        })
    }

    fn update(
        &mut self,
        cpu: &mut Cpu,
        linear: u64,
        size: usize,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Trap> {
        let mut bytes = [0; 8];
        if (linear & 0xfff) as usize + size <= 0x1000
            && let Ok(host) = self.host(cpu, linear, size, true, Privilege::Current)?
        {
            // SAFETY: `size` bytes at `host` lie in one page of RAM.
            unsafe {
                loop {
                    copy_in(host, &mut bytes[..size]);
                    let old = u64::from_le_bytes(bytes);
                    if compare_exchange(host, size, old, f(old)) {
                        breakpoints::note(cpu, breakpoints::Access::Write, linear, size as u64);
                        return Ok(old);
                    }
                }
            }
        }
        let memory = Arc::clone(self.phys.memory());
        let _split = memory.lock_split();
        self.check_store(cpu, linear, size, Privilege::Current)?;
        self.load(cpu, linear, &mut bytes[..size], Privilege::Current)?;
        let old = u64::from_le_bytes(bytes);
        self.store(
            cpu,
            linear,
            &f(old).to_le_bytes()[..size],
            Privilege::Current,
        )?;
        Ok(old)
    }

    fn ram_page(&mut self, cpu: &mut Cpu, linear: u64, write: bool) -> Option<*mut u8> {
        if breakpoints::on_page(cpu, linear, false) {
            return None;
        }
        let host = self
            .host(cpu, linear, 0, write, Privilege::Current)
            .ok()?
            .ok()?;
        if write {
            // A page with code wants each store seen.
            let class = class_of(cpu, cpu.cpl == 3, false);
            let entry = self.entry(class, linear);
            (entry.tag_write ^ linear < 4096).then_some(host)
        } else {
            Some(host)
        }
    }

    fn port_in(&mut self, _: &mut Cpu, port: u16, size: u8) -> Result<u32, Trap> {
        let access = Exit::PortIn { port, size };
        let value = self.device(access, |d, id| d.port_read(id, port, size).map(u64::from))?;
        Ok(value as u32)
    }

    fn port_out(&mut self, _: &mut Cpu, port: u16, size: u8, value: u32) -> Result<(), Trap> {
        let access = Exit::PortOut { port, size, value };
        self.device(access, |d, id| {
            d.port_write(id, port, size, value).then_some(0)
        })?;
        Ok(())
    }

    fn string_answered(&self) -> bool {
        self.string.is_some()
    }

    fn port_in_string(
        &mut self,
        _: &mut Cpu,
        port: u16,
        size: u8,
        out: &mut [u8],
    ) -> Result<usize, Trap> {
        let count = (out.len() / usize::from(size)) as u16;
        let access = Exit::PortInString { port, size, count };
        if self.string.take_if(|done| *done == access).is_some() {
            let there = self.string_bytes.len().min(out.len());
            out[..there].copy_from_slice(&self.string_bytes[..there]);
            out[there..].fill(0xff);
            self.string_bytes.clear();
            return Ok(usize::from(count));
        }
        self.device_accesses += 1;
        let Some(value) = self.devices.port_read(self.id, port, size) else {
            return Err(Trap::Exit(access));
        };
        out[..usize::from(size)].copy_from_slice(&value.to_le_bytes()[..usize::from(size)]);
        Ok(1)
    }

    fn port_out_string(
        &mut self,
        _: &mut Cpu,
        port: u16,
        size: u8,
        data: &[u8],
    ) -> Result<usize, Trap> {
        // What was written is what the exit held, whatever has become of the memory since.
        if let Some(Exit::PortOutString { data: written, .. }) = self.string.take_if(|done| {
            matches!(done, Exit::PortOutString { port: at, size: bytes, data: written }
                if *at == port && *bytes == size && written.len() == data.len())
        }) {
            return Ok(written.len() / usize::from(size));
        }
        self.device_accesses += 1;
        let mut value = [0; 4];
        value[..usize::from(size)].copy_from_slice(&data[..usize::from(size)]);
        let value = u32::from_le_bytes(value);
        if self.devices.port_write(self.id, port, size, value) {
            return Ok(1);
        }
        let data = data.to_vec();
        Err(Trap::Exit(Exit::PortOutString { port, size, data }))
    }

    fn commit_element(&mut self) {
        self.end_instruction();
    }

    fn should_yield(&mut self) -> bool {
        // SAFETY: valid by the contract of `new`; the flag is atomic.
        let kicked = unsafe { (*self.context).kick.load(Ordering::Relaxed) != 0 };
        // A kick comes at any time; an interrupt of a deterministic machine must not wait for one.
        self.paused =
            kicked || self.clock.counted().is_some() && self.devices.interrupt_pending(self.id);
        self.paused
    }

    fn flush(&mut self, _: &mut Cpu, what: Flush) {
        self.fetch = None;
        // SAFETY: valid by the contract of `new`; the TLB is apart from the registers that the
        // caller borrows.
        let context = unsafe { &mut *self.context };
        match what {
            Flush::Page(linear) => {
                self.tlb.flush_page(context, linear);
                self.pending.pages.push(linear & !0xfff);
            }
            Flush::NonGlobal => {
                self.tlb.flush(context, true);
                self.pending.flush.get_or_insert(what);
            }
            Flush::All => {
                self.tlb.flush(context, false);
                self.pending.flush = Some(what);
            }
        }
    }

    fn cpuid(&mut self, cpu: &Cpu, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.cpuid.get(cpu, self.id, leaf, subleaf)
    }

    fn availability(&self, code: Code) -> Availability {
        self.cpuid.availability(code)
    }

    fn tsc(&mut self, cpu: &Cpu) -> u64 {
        self.clock.tsc().wrapping_add(cpu.msr.tsc_adjust)
    }

    fn random(&mut self) -> Option<u64> {
        self.clock.counted()?;
        // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(value ^ value >> 31)
    }

    fn vcpu_id(&self) -> u32 {
        self.id
    }

    fn devices(&self) -> &dyn LocalDevices {
        &*self.devices
    }

    fn paravirt(&mut self) -> Option<&mut Paravirt> {
        Some(&mut self.paravirt)
    }
}

/// Privilege class of a data access.
fn class_of(cpu: &Cpu, user: bool, implicit: bool) -> usize {
    let open = cpu.rflags & flags::AC != 0 && cpu.cr4 & cr::CR4_SMAP != 0;
    match (user, implicit) {
        (true, _) => 1,
        (false, false) if open => 2,
        _ => 0,
    }
}

/// Copies from guest memory; power-of-two sizes in one access, as a processor does.
///
/// # Safety
/// `out.len()` bytes at `host` must be readable.
unsafe fn copy_in(host: *const u8, out: &mut [u8]) {
    // SAFETY: by the contract.
    unsafe {
        match out.len() {
            8 => out.copy_from_slice(&host.cast::<u64>().read_unaligned().to_le_bytes()),
            4 => out.copy_from_slice(&host.cast::<u32>().read_unaligned().to_le_bytes()),
            2 => out.copy_from_slice(&host.cast::<u16>().read_unaligned().to_le_bytes()),
            n => copy_nonoverlapping(host, out.as_mut_ptr(), n),
        }
    }
}

/// Copies to guest memory; power-of-two sizes in one access, as a processor does.
///
/// # Safety
/// `data.len()` bytes at `host` must be writable.
unsafe fn copy_out(data: &[u8], host: *mut u8) {
    // SAFETY: by the contract.
    unsafe {
        match *data {
            [a, b] => host
                .cast::<u16>()
                .write_unaligned(u16::from_le_bytes([a, b])),
            [a, b, c, d] => {
                host.cast::<u32>()
                    .write_unaligned(u32::from_le_bytes([a, b, c, d]));
            }
            [a, b, c, d, e, f, g, h] => {
                let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                host.cast::<u64>().write_unaligned(value);
            }
            _ => copy_nonoverlapping(data.as_ptr(), host, data.len()),
        }
    }
}

/// LOCK CMPXCHG of 1, 2, 4 or 8 bytes, aligned or not.
///
/// # Safety
/// `size` bytes at `host` must be writable.
unsafe fn compare_exchange(host: *mut u8, size: usize, old: u64, new: u64) -> bool {
    let success: u8;
    // SAFETY: by the contract; each form touches `size` bytes at `host`.
    unsafe {
        match size {
            1 => asm!("lock cmpxchg [{p}], {n}", "sete {s}", p = in(reg) host,
                n = in(reg_byte) new as u8, s = out(reg_byte) success,
                inout("al") old as u8 => _),
            2 => asm!("lock cmpxchg [{p}], {n:x}", "sete {s}", p = in(reg) host, n = in(reg) new,
                s = out(reg_byte) success, inout("rax") old => _),
            4 => asm!("lock cmpxchg [{p}], {n:e}", "sete {s}", p = in(reg) host, n = in(reg) new,
                s = out(reg_byte) success, inout("rax") old => _),
            _ => asm!("lock cmpxchg [{p}], {n}", "sete {s}", p = in(reg) host, n = in(reg) new,
                s = out(reg_byte) success, inout("rax") old => _),
        }
    }
    success != 0
}

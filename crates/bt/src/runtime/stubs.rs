//! Fixed pieces of host code: entry to and exit from translated code, and the bridge to helpers.

use super::helpers;
use crate::cache::Cache;
use crate::context::{self, CLASSES, RECENT_SLOTS, at, gpr};
use crate::emit::asm::reg::{R9, R10, R11, RAX, RDI, RDX, RSI, RSP};
use crate::emit::asm::{Asm, Mem, cc, op};
use crate::frontend::exit;
use crate::frontend::memory::{HOST, meta, probe_index, recent_host, recent_tag, tag_offset};

/// General registers that live in host registers, as (host, guest) numbers; RAX apart.
const REGISTERS: [(u8, u8); 12] = [
    (1, 1),
    (2, 2),
    (3, 3),
    (5, 5),
    (6, 6),
    (7, 7),
    (8, 8),
    (R9, 4),
    (12, 12),
    (13, 13),
    (14, 9),
    (15, 10),
];
/// Host registers that a call preserves.
const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// Addresses of the stubs.
#[derive(Clone, Copy, Debug)]
pub struct Stubs {
    /// `extern "sysv64" fn(code, r10)`: runs translated code until it leaves.
    pub enter: *const u8,
    /// Leaves; the guest's flags are in EFLAGS.
    pub exit: *const u8,
    /// Leaves; the guest's flags are in the context.
    pub exit_memory_flags: *const u8,
    /// Leaves because the branch target in R10 is unknown; flags in EFLAGS, if they are live.
    pub target_miss: *const u8,
    /// The same, flags in the context.
    pub target_miss_memory_flags: *const u8,
    /// Loads x87, SSE and AVX state; EFLAGS are lost.
    pub fpu_load: *const u8,
    /// Translates the address in R11, arguments in R10; returns the host address in R11.
    pub memory_miss: *const u8,
    /// As `memory_miss`, but looks into the TLB first and makes the page the recent one of its
    /// slot; by privilege class, slot, and load or store.
    pub recent_miss: [[[*const u8; 2]; RECENT_SLOTS]; CLASSES],
    /// Where the signal handler resumes after a fault of guest code, its address in R10.
    pub native_fault: *const u8,
}

// SAFETY: the addresses lead into the cache that goes with them.
unsafe impl Send for Stubs {}

impl Stubs {
    /// Emits the stubs at the start of `cache`.
    pub fn emit(cache: &mut Cache) -> Self {
        let avx = std::arch::is_x86_feature_detected!("avx");
        let asm = &mut cache.hot;
        let enter = emit_enter(asm);
        let (exit, exit_memory_flags, saved) = emit_exit(asm, avx);

        let mut miss = |leave| {
            let here = asm.here().cast_const();
            asm.store(Mem::gs(at!(cpu.rip)), R10);
            asm.store_imm32(Mem::gs(at!(exit)), exit::TARGET);
            asm.jmp(leave);
            here
        };
        let target_miss = miss(exit);
        let target_miss_memory_flags = miss(exit_memory_flags);

        let fpu_load = emit_fpu_load(asm);
        let memory_miss = emit_memory_miss(asm, saved);

        let bmi2 = std::arch::is_x86_feature_detected!("bmi2");
        let mut recent_miss = [[[std::ptr::null(); 2]; RECENT_SLOTS]; CLASSES];
        for (class, slots) in recent_miss.iter_mut().enumerate() {
            for (slot, stubs) in slots.iter_mut().enumerate() {
                *stubs = [false, true].map(|write| {
                    emit_recent_miss(asm, memory_miss, class, slot as u8, write, bmi2)
                });
            }
        }

        let native_fault = asm.here();
        asm.store(Mem::gs(at!(exit_site)), R10);
        asm.store(Mem::gs(gpr(0)), RAX);
        // lahf; seto al; mov gs:[fault_flags], ax
        asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0, 0x66]);
        asm.op_mem(false, &[op::STORE], RAX, Mem::gs(at!(fault_flags)));
        store_registers(asm);
        asm.store_imm32(Mem::gs(at!(exit)), exit::FAULT);
        asm.jmp(saved);

        cache.seal_stubs([target_miss, target_miss_memory_flags]);
        Self {
            enter,
            exit,
            exit_memory_flags,
            target_miss,
            target_miss_memory_flags,
            fpu_load,
            memory_miss,
            recent_miss,
            native_fault,
        }
    }
}

fn store_registers(asm: &mut Asm) {
    for (host, guest) in REGISTERS {
        asm.store(Mem::gs(gpr(guest)), host);
    }
}

fn push(asm: &mut Asm, register: u8) {
    if register >= 8 {
        asm.byte(0x41);
    }
    asm.byte(0x50 | register & 7);
}

fn pop(asm: &mut Asm, register: u8) {
    if register >= 8 {
        asm.byte(0x41);
    }
    asm.byte(0x58 | register & 7);
}

/// ADD RSP, imm8.
fn add_rsp(asm: &mut Asm, by: i8) {
    asm.bytes(&[0x48, 0x83, 0xc4, by as u8]);
}

fn emit_enter(asm: &mut Asm) -> *const u8 {
    let here = asm.here();
    for register in CALLEE_SAVED {
        push(asm, register);
    }
    add_rsp(asm, -8);
    asm.store(Mem::gs(at!(host_rsp)), RSP);
    asm.store(Mem::gs(at!(scratch)), RDI);
    asm.mov(R10, RSI);
    asm.op_mem(false, &[op::LOAD], RAX, Mem::gs(at!(flags)));
    // add al, 127; sahf
    asm.bytes(&[0x04, 0x7f, 0x9e]);
    for (host, guest) in REGISTERS {
        asm.load(host, Mem::gs(gpr(guest)));
    }
    asm.load(RAX, Mem::gs(gpr(0)));
    asm.jmp_mem(Mem::gs(at!(scratch)));
    here
}

/// `op` with `[gs:xsave]`: 0F AE or 0F C7 group with REX.W.
fn extended_state(asm: &mut Asm, extension: u8) {
    asm.op_mem(true, &[0x0f, 0xae], extension, Mem::gs(at!(cpu.xsave)));
}

fn emit_exit(asm: &mut Asm, avx: bool) -> (*const u8, *const u8, *const u8) {
    let exit = asm.here();
    asm.store(Mem::gs(gpr(0)), RAX);
    asm.bytes(&[0x9f, 0x0f, 0x90, 0xc0, 0x66]);
    asm.op_mem(false, &[op::STORE], RAX, Mem::gs(at!(flags)));
    let over = asm.short(0xeb);
    let exit_memory_flags = asm.here();
    asm.store(Mem::gs(gpr(0)), RAX);
    asm.bind_short(over);
    store_registers(asm);
    let saved = asm.here();
    asm.cmp_mem_zero(Mem::gs(at!(fpu_resident)));
    let clean = asm.short(0x70 | cc::E);
    asm.op_mem(false, &[op::LOAD], RAX, Mem::gs(at!(xsave_mask)));
    asm.op_reg(false, op::XOR, RDX, RDX);
    // xsave64
    extended_state(asm, 4);
    asm.store_imm32(Mem::gs(at!(fpu_resident)), 0);
    // fninit; ldmxcsr gs:[host_mxcsr]
    asm.bytes(&[0xdb, 0xe3]);
    asm.op_mem(false, &[0x0f, 0xae], 2, Mem::gs(at!(host_mxcsr)));
    if avx {
        // vzeroupper
        asm.bytes(&[0xc5, 0xf8, 0x77]);
    }
    asm.bind_short(clean);
    asm.load(RSP, Mem::gs(at!(host_rsp)));
    add_rsp(asm, 8);
    for register in CALLEE_SAVED.iter().rev() {
        pop(asm, *register);
    }
    asm.byte(0xc3);
    (exit, exit_memory_flags, saved)
}

fn emit_fpu_load(asm: &mut Asm) -> *const u8 {
    let here = asm.here();
    asm.store(Mem::gs(at!(scratch)), RAX);
    asm.store(Mem::gs(at!(scratch) + 8), RDX);
    asm.op_mem(false, &[op::LOAD], RAX, Mem::gs(at!(xsave_mask)));
    asm.op_reg(false, op::XOR, RDX, RDX);
    // xrstor64
    extended_state(asm, 5);
    asm.store_imm32(Mem::gs(at!(fpu_resident)), 1);
    asm.load(RAX, Mem::gs(at!(scratch)));
    asm.load(RDX, Mem::gs(at!(scratch) + 8));
    asm.byte(0xc3);
    here
}

/// MOVAPS between XMM0 to XMM15 and the context, if the guest's state is in them.
fn vectors(asm: &mut Asm, opcode: u8) {
    asm.cmp_mem_zero(Mem::gs(at!(fpu_resident)));
    let site = asm.jcc(cc::E, std::ptr::null());
    for i in 0..16 {
        asm.op_mem(
            false,
            &[0x0f, opcode],
            i,
            Mem::gs(at!(xmm) + i32::from(i) * 16),
        );
    }
    // SAFETY: the site is the branch just emitted.
    unsafe { crate::emit::asm::patch(site, asm.here()) };
}

fn emit_memory_miss(asm: &mut Asm, saved: *const u8) -> *const u8 {
    let here = asm.here();
    asm.store(Mem::gs(gpr(0)), RAX);
    store_registers(asm);
    vectors(asm, 0x29);
    asm.load(RDI, Mem::gs(at!(this)));
    asm.mov(RSI, R11);
    asm.op_reg(false, op::LOAD, RDX, R10);
    add_rsp(asm, -8);
    asm.mov_imm(RAX, helpers::memory_miss as *const () as u64);
    // call rax
    asm.bytes(&[0xff, 0xd0]);
    add_rsp(asm, 8);
    vectors(asm, 0x28);
    // test rax, rax: 0 gives up, other values are the caller's
    asm.bytes(&[0x48, 0x85, 0xc0]);
    let give_up = asm.jcc(cc::E, std::ptr::null());
    asm.mov(R11, RAX);
    asm.load(RAX, Mem::gs(gpr(0)));
    for (host, guest) in REGISTERS
        .into_iter()
        .filter(|(h, _)| !CALLEE_SAVED.contains(h))
    {
        asm.load(host, Mem::gs(gpr(guest)));
    }
    asm.byte(0xc3);
    // SAFETY: the site is the branch emitted above.
    unsafe { crate::emit::asm::patch(give_up, asm.here()) };
    asm.store_imm32(Mem::gs(at!(exit)), exit::MEMORY);
    asm.jmp(saved);
    here
}

/// PUSH and POP of memory.
fn push_mem(asm: &mut Asm, mem: Mem) {
    asm.op_mem(false, &[0xff], 6, mem);
}

fn pop_mem(asm: &mut Asm, mem: Mem) {
    asm.op_mem(false, &[0x8f], 0, mem);
}

/// The address is in R11, the arguments in R10. The host's stack stands in for registers.
fn emit_recent_miss(
    asm: &mut Asm,
    memory_miss: *const u8,
    class: usize,
    slot: u8,
    write: bool,
    bmi2: bool,
) -> *const u8 {
    let here = asm.here();
    let (entries, page) = (context::tlb(class), context::recent(class, slot));
    let tag = Mem::gs_at(R10, entries + tag_offset(write));
    push(asm, R10);
    probe_index(asm, bmi2);
    asm.op_mem(true, &[op::XOR], R11, tag);
    push(asm, R10);
    // R10 = 4096 - size
    asm.op_mem(
        false,
        &[op::LOAD],
        R10,
        Mem {
            base: Some(RSP),
            disp: 8,
            ..Mem::default()
        },
    );
    // not r10d; and r10d, size mask; add r10d, 4096 - size mask: all that for 4096 - size
    asm.op_reg(false, 0xf7, 2, R10);
    asm.op_reg(false, 0x81, 4, R10);
    asm.dword(meta::SIZE);
    asm.op_reg(false, 0x81, 0, R10);
    asm.dword(4096 - meta::SIZE);
    asm.op_reg(true, op::CMP, R11, R10);
    pop(asm, R10);
    let miss = asm.jcc(cc::A, std::ptr::null());
    asm.op_mem(true, &[op::ADD], R11, Mem::gs_at(R10, entries + HOST));
    // A page that may be written may be read as well.
    let kinds: &[bool] = if write { &[false, true] } else { &[false] };
    for &kind in kinds {
        push_mem(asm, Mem::gs_at(R10, entries + tag_offset(kind)));
        pop_mem(asm, Mem::gs(page + recent_tag(kind)));
        push_mem(asm, Mem::gs_at(R10, entries + HOST));
        pop_mem(asm, Mem::gs(page + recent_host(kind)));
    }
    add_rsp(asm, 8);
    asm.byte(0xc3);
    // SAFETY: the site is the branch emitted above.
    unsafe { crate::emit::asm::patch(miss, asm.here()) };
    asm.op_mem(true, &[op::XOR], R11, tag);
    pop(asm, R10);
    asm.jmp(memory_miss);
    here
}

//! Code that runs one guest instruction on the host's processor, and its cache.
//!
//! Each thread has a table of slots in executable memory. A slot holds, at fixed places, the
//! entry for a recovered fault, the instruction itself, and the code around it; a slot is written
//! anew when another instruction takes its place.

use std::cell::RefCell;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use iced_x86::{CodeSize, Encoder, Instruction, OpKind, Register};
use ringfence_x86::{cr, flags};

use super::state;
use crate::cpu::{Cpu, RAX, RCX, RDI, RDX, RSP};
use crate::env::Trap;
use crate::interp::register::gpr;

/// Bytes of a slot.
const SLOT: usize = 256;
/// Slots of a thread.
const SLOTS: usize = 1024;
/// Offset of the guest instruction in a slot; recovery is at its start.
const INSTRUCTION: usize = 32;
/// Offset of the entry: behind the longest instruction and a jump.
const ENTRY: usize = 64;
/// Threads whose faults can be recovered.
const THREADS: usize = 512;

/// Start addresses of the tables of all threads, for the signal handler.
static TABLES: [AtomicUsize; THREADS] = [const { AtomicUsize::new(0) }; THREADS];

/// Where a signal handler sends a thread that faulted at `rip`, when that is the guest
/// instruction of a native run. Async-signal-safe.
pub fn native_recovery(rip: u64) -> Option<u64> {
    let rip = rip as usize;
    for table in &TABLES {
        let start = table.load(Ordering::Acquire);
        if start != 0 && (start..start + SLOT * SLOTS).contains(&rip) {
            let slot = (rip - start) / SLOT * SLOT + start;
            return (rip - slot == INSTRUCTION).then_some(slot as u64);
        }
    }
    None
}

/// Buffer that stands for the memory operand.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Bounce(pub [u8; 64]);

impl Bounce {
    /// A buffer of equal bytes.
    pub fn filled(byte: u8) -> Self {
        Self([byte; 64])
    }
}

/// What a slot's code works with; it knows the offsets.
#[repr(C)]
struct Context {
    gpr: [u64; 16],
    rflags: u64,
    buffer: *mut u8,
    area: *mut u8,
    components: u32,
    faulted: u32,
    mxcsr: u32,
}

const RFLAGS: u32 = std::mem::offset_of!(Context, rflags) as u32;
const BUFFER: u32 = std::mem::offset_of!(Context, buffer) as u32;
const AREA: u32 = std::mem::offset_of!(Context, area) as u32;
const COMPONENTS: u32 = std::mem::offset_of!(Context, components) as u32;
const FAULTED: u32 = std::mem::offset_of!(Context, faulted) as u32;
const MXCSR: u32 = std::mem::offset_of!(Context, mxcsr) as u32;

/// How a native run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The instruction faulted; no register but MXCSR changed.
    pub faulted: bool,
    /// Host addresses of its code.
    pub code: Range<u64>,
}

/// State components that the host has enabled, of those that the XSAVE area holds.
static HOST_COMPONENTS: LazyLock<u64> = LazyLock::new(|| {
    if !is_x86_feature_detected!("xsave") {
        return 0;
    }
    let (low, high): (u32, u32);
    // SAFETY: XSAVE is enabled, and XGETBV with it; it changes only EDX:EAX.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    (u64::from(high) << 32 | u64::from(low)) & 0xe7
});

/// Runs `instruction` on the host with its memory operand, if any, replaced by `bounce`.
/// Registers, flags (with `with_flags`) and the XSAVE area become what it leaves; RIP stays.
///
/// # Errors
/// #UD when the host can't run it.
pub fn run(
    cpu: &mut Cpu,
    instruction: &Instruction,
    with_flags: bool,
    bounce: &mut Bounce,
) -> Result<Outcome, Trap> {
    let host = *HOST_COMPONENTS;
    let components = host & (cpu.xcr0 | cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX);
    if components & cr::XCR0_SSE == 0 {
        return Err(Trap::UD);
    }
    state::sanitize(cpu, host);
    let slot = THREAD_TABLE.with_borrow_mut(|table| table.find(instruction, with_flags));
    let Some(slot) = slot else {
        return Err(Trap::UD);
    };
    let mut context = Context {
        gpr: cpu.gpr,
        rflags: cpu.rflags & flags::ARITHMETIC | flags::FIXED,
        buffer: bounce.0.as_mut_ptr(),
        area: cpu.xsave.0.as_mut_ptr(),
        components: components as u32,
        faulted: 0,
        mxcsr: 0x1f80,
    };
    // SAFETY: the slot holds complete code of this calling convention, which touches the context,
    // the area (aligned to 64) and the buffer; it stays as it is until the next `find`.
    unsafe {
        let entry: extern "sysv64" fn(*mut Context) = std::mem::transmute(slot + ENTRY);
        entry(&raw mut context);
    }
    let faulted = context.faulted != 0;
    if !faulted {
        cpu.gpr = context.gpr;
        if with_flags {
            cpu.rflags = cpu.rflags & !flags::ARITHMETIC | context.rflags & flags::ARITHMETIC;
        }
    }
    Ok(Outcome {
        faulted,
        code: slot as u64..(slot + SLOT) as u64,
    })
}

/// The instruction as it runs on the host, and the registers it needs.
#[derive(Clone, Copy, PartialEq)]
struct Plan {
    instruction: Instruction,
    /// General registers to load and store, RSP apart.
    used: u16,
    /// Register that holds the buffer's address.
    pointer: usize,
    /// Register that stands for RSP, when the instruction names it.
    substitute: Option<usize>,
    flags: bool,
}

impl Plan {
    fn new(original: &Instruction, flags: bool) -> Option<Self> {
        let mut instruction = *original;
        // Implicit operands are in RAX, RCX and RDX.
        let mut used = 1 << RAX | 1 << RCX | 1 << RDX;
        let mut names_rsp = false;
        let mut implicit = false;
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::Register => {
                    if let Some(register) = gpr(instruction.op_register(operand)) {
                        names_rsp |= register.index == RSP;
                        used |= 1u16 << register.index;
                    }
                }
                OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
                    implicit = true;
                    instruction.set_op_kind(operand, OpKind::MemorySegRDI);
                }
                _ => {}
            }
        }
        used &= !(1 << RSP);
        let mut free = (8..12).filter(|index| used & 1 << index == 0);
        let pointer = if implicit { RDI } else { free.next()? };
        let substitute = if names_rsp { Some(free.next()?) } else { None };
        if let Some(substitute) = substitute {
            for operand in 0..instruction.op_count() {
                let name = instruction.op_register(operand);
                if instruction.op_kind(operand) == OpKind::Register
                    && gpr(name).is_some_and(|register| register.index == RSP)
                {
                    // Names of one size are numbered in the order of their encodings.
                    let other = name as usize - RSP + substitute;
                    instruction.set_op_register(operand, Register::try_from(other).ok()?);
                }
            }
        }
        instruction.set_segment_prefix(Register::None);
        let kinds = 0..instruction.op_count();
        if kinds
            .map(|i| instruction.op_kind(i))
            .any(|kind| kind == OpKind::Memory)
        {
            // Without memory these fields may hold a second immediate.
            instruction.set_memory_base(Register::try_from(Register::RAX as usize + pointer).ok()?);
            instruction.set_memory_index(Register::None);
            instruction.set_memory_index_scale(1);
            instruction.set_memory_displ_size(0);
            instruction.set_memory_displacement64(0);
        }
        instruction.set_has_rep_prefix(false);
        instruction.set_has_repne_prefix(false);
        instruction.set_has_lock_prefix(false);
        instruction.set_code_size(CodeSize::Code64);
        Some(Self {
            instruction,
            used,
            pointer,
            substitute,
            flags,
        })
    }

    /// Slot number.
    fn hash(&self) -> usize {
        let mut hash = self.instruction.code() as usize;
        for operand in 0..self.instruction.op_count() {
            let part = match self.instruction.op_kind(operand) {
                OpKind::Register => self.instruction.op_register(operand) as usize,
                OpKind::Immediate8 => self.instruction.immediate8() as usize,
                _ => 0x1ff,
            };
            hash = hash.wrapping_mul(0x9e37_79b9).wrapping_add(part);
        }
        (hash ^ hash >> 15) % SLOTS
    }
}

thread_local! {
    static THREAD_TABLE: RefCell<Table> = const { RefCell::new(Table::new()) };
}

/// The slots of a thread.
struct Table {
    /// Start of the executable memory; null before the first use.
    memory: *mut u8,
    /// Index in [`TABLES`].
    registered: Option<usize>,
    plans: Vec<Option<Plan>>,
}

impl Table {
    const fn new() -> Self {
        Self {
            memory: null_mut(),
            registered: None,
            plans: Vec::new(),
        }
    }

    /// Address of the slot with the code for `instruction`.
    fn find(&mut self, instruction: &Instruction, flags: bool) -> Option<usize> {
        let plan = Plan::new(instruction, flags)?;
        let number = plan.hash();
        if self.memory.is_null() {
            self.allocate()?;
        }
        if self.plans[number] != Some(plan) {
            self.plans[number] = None;
            let code = emit(&plan)?;
            // SAFETY: the slot lies within the mapping, and no code in it is running.
            unsafe {
                let slot = self.memory.add(number * SLOT);
                std::ptr::copy_nonoverlapping(code.as_ptr(), slot, SLOT);
            }
            self.plans[number] = Some(plan);
        }
        Some(self.memory as usize + number * SLOT)
    }

    fn allocate(&mut self) -> Option<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let memory = unsafe { libc::mmap(null_mut(), SLOT * SLOTS, protection, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return None;
        }
        self.memory = memory.cast();
        self.plans = vec![None; SLOTS];
        self.registered = TABLES.iter().position(|table| {
            table
                .compare_exchange(0, memory as usize, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        });
        Some(())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            TABLES[index].store(0, Ordering::Release);
        }
        if !self.memory.is_null() {
            // SAFETY: the mapping is this table's own, and its thread is ending.
            unsafe { libc::munmap(self.memory.cast(), SLOT * SLOTS) };
        }
    }
}

/// Machine code in the making.
struct Code {
    bytes: [u8; SLOT],
    length: usize,
}

impl Code {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.length += bytes.len();
    }

    /// An instruction whose operand is `[rdi + displacement]`.
    fn context(&mut self, opcode: &[u8], register: usize, displacement: u32) {
        self.put(opcode);
        self.put(&[0x87 | (register as u8 & 7) << 3]);
        self.put(&displacement.to_le_bytes());
    }

    /// MOV between a 64-bit register and a slot of [`Context::gpr`].
    fn register(&mut self, opcode: u8, register: usize, slot: usize) {
        let rex = 0x48 | (register as u8 >> 3) << 2;
        self.put(&[
            rex,
            opcode,
            0x47 | (register as u8 & 7) << 3,
            (8 * slot) as u8,
        ]);
    }

    fn jump(&mut self, target: usize) {
        let distance = target as i32 - (self.length as i32 + 5);
        self.put(&[0xe9]);
        self.put(&distance.to_le_bytes());
    }

    fn area(&mut self, modrm: u8) {
        self.put(&[0x31, 0xd2]); // xor edx, edx
        self.context(&[0x8b], 0, COMPONENTS); // mov eax, [components]
        self.context(&[0x48, 0x8b], 1, AREA); // mov rcx, [area]
        self.put(&[0x48, 0x0f, 0xae, modrm]); // xsave64 or xrstor64 [rcx]
    }
}

const LOAD: u8 = 0x8b;
const STORE: u8 = 0x89;

/// The code of a slot.
fn emit(plan: &Plan) -> Option<[u8; SLOT]> {
    let mut encoder = Encoder::new(64);
    encoder.encode(&plan.instruction, 0).ok()?;
    let instruction = encoder.take_buffer();
    let mut code = Code {
        bytes: [0xcc; SLOT],
        length: ENTRY,
    };
    let registers = || (0..16).filter(|index| plan.used & 1 << index != 0 && *index != RDI);
    let rdi_used = plan.used & 1 << RDI != 0;

    code.put(&[0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57]); // push rbx .. r15
    code.put(&[0x57]); // push rdi: the context
    code.area(0x29);
    if plan.flags {
        code.context(&[0xff], 6, RFLAGS); // push [rflags]
        code.put(&[0x9d]); // popfq
    }
    for register in registers() {
        code.register(LOAD, register, register);
    }
    if let Some(substitute) = plan.substitute {
        code.register(LOAD, substitute, RSP);
    }
    if plan.pointer != RDI && rdi_used {
        let rex = 0x48 | (plan.pointer as u8 >> 3) << 2;
        code.context(&[rex, LOAD], plan.pointer, BUFFER);
        code.register(LOAD, RDI, RDI);
    } else {
        let rex = 0x48 | (plan.pointer as u8 >> 3) << 2;
        code.context(&[rex, LOAD], plan.pointer, BUFFER);
    }
    code.jump(INSTRUCTION);

    let after = code.length;
    code.put(&[0x9c]); // pushfq
    code.put(&[0x57, 0x48, 0x8b, 0x7c, 0x24, 0x10]); // push rdi; mov rdi, [rsp+16]
    for register in registers() {
        code.register(STORE, register, register);
    }
    if let Some(substitute) = plan.substitute {
        code.register(STORE, substitute, RSP);
    }
    code.put(&[0x58]); // pop rax: RDI after the instruction
    if rdi_used && plan.pointer != RDI {
        code.register(STORE, RAX, RDI);
    }
    code.put(&[0x58]); // pop rax: flags
    code.context(&[0x48, STORE], RAX, RFLAGS);
    code.put(&[0x58]); // pop rax: the context
    code.area(0x21);
    code.put(&[0xdb, 0xe3]); // fninit
    code.context(&[0x0f, 0xae], 2, MXCSR); // ldmxcsr [mxcsr]
    if *HOST_COMPONENTS & cr::XCR0_AVX != 0 {
        code.put(&[0xc5, 0xf8, 0x77]); // vzeroupper
    }
    code.put(&[
        0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3,
    ]); // pops; ret
    let end = code.length;

    code.length = INSTRUCTION;
    code.put(&instruction);
    code.jump(after);
    let fits = code.length <= ENTRY && end <= SLOT;

    // Recovery: push rdi; mov rdi, [rsp+8]; mov dword [faulted], 1; pop rdi.
    code.length = 0;
    code.put(&[0x57, 0x48, 0x8b, 0x7c, 0x24, 0x08]);
    code.context(&[0xc7], 0, FAULTED);
    code.put(&1u32.to_le_bytes());
    code.put(&[0x5f]);
    code.jump(after);
    (fits && code.length <= INSTRUCTION).then_some(code.bytes)
}

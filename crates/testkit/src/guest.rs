//! A guest in 64-bit mode whose cases end in an exception, as they do on the host.
//!
//! Every exception and interrupt has a gate to a handler on a stack of its own, and the handler
//! writes its vector to the I/O port of that number: [`Mock`](crate::Mock) notes it and stops the processor.

use std::sync::Arc;

use ringfence_engine::{
    DescriptorTable, GuestMemory, Registers, Segment, SegmentAttributes, SystemRegisters,
};
use ringfence_memory::{MemoryError, RegionKind};
use ringfence_x86::{cr, exception, paging};

use crate::layout::{
    ABSENT, AREA, AREA_SIZE, CODE, CODE_SIZE, DATA, IMAGE_SIZE, ISLAND, PAGE, READ_ONLY, TABLES,
    TABLES_SIZE, selector,
};
use crate::state::{Outcome, State, XSTATE_SIZE, layout};

const PML4: u64 = TABLES;
const PDPT: u64 = TABLES + 0x1000;
const DIRECTORY: u64 = TABLES + 0x2000;
/// Page tables of the 2 MiB from CODE and from TABLES.
const LOW_TABLE: u64 = TABLES + 0x3000;
const HIGH_TABLE: u64 = TABLES + 0x4000;
const GDT: u64 = TABLES + 0x5000;
const IDT: u64 = TABLES + 0x6000;
const TSS: u64 = TABLES + 0x7000;
const HANDLERS: u64 = TABLES + 0x8000;
const ENTRY: u64 = TABLES + 0x9000;
/// Values that the entry code loads: GS base, FS base, RAX, then the frame of its IRETQ.
const ENTRY_DATA: u64 = TABLES + 0xa000;
const STACK_TOP: u64 = TABLES + 0xe000;
const HANDLER_SIZE: u64 = 16;

/// The privilege and kind of code that a case runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// 64-bit code, CPL 0.
    Kernel,
    /// 64-bit code, CPL 3.
    User,
    /// 32-bit code in compatibility mode, CPL 3.
    User32,
}

impl Ring {
    fn selectors(self) -> (u16, u16) {
        match self {
            Self::Kernel => (selector::KERNEL_CODE, selector::KERNEL_DATA),
            Self::User => (selector::USER_CODE, selector::USER_DATA),
            Self::User32 => (selector::USER_CODE32, selector::USER_DATA),
        }
    }
}

/// Guest memory with tables, handlers, code and data areas.
///
/// # Errors
/// [`MemoryError`] when the host has no memory.
pub fn memory() -> Result<Arc<GuestMemory>, MemoryError> {
    let memory = GuestMemory::new();
    for (start, size) in [(CODE, CODE_SIZE), (AREA, AREA_SIZE), (TABLES, TABLES_SIZE)] {
        memory.map(start, size, RegionKind::Ram)?;
    }
    write_tables(&memory)?;
    Ok(Arc::new(memory))
}

/// Writes page tables, descriptor tables and handlers, the first time or again.
///
/// # Errors
/// [`MemoryError`] if `memory` is not from [`memory`].
pub fn write_tables(memory: &GuestMemory) -> Result<(), MemoryError> {
    memory.fill(TABLES, TABLES_SIZE as usize, 0)?;
    let put = |address, value: u64| memory.write(address, &value.to_le_bytes());
    let all = paging::P | paging::RW | paging::US;
    put(PML4, PDPT | all)?;
    put(PDPT, DIRECTORY | all)?;
    put(DIRECTORY + (CODE >> 21) * 8, LOW_TABLE | all)?;
    put(DIRECTORY + (TABLES >> 21) * 8, HIGH_TABLE | all)?;
    for page in (CODE..CODE + CODE_SIZE).step_by(PAGE as usize) {
        put(entry_address(page), page | all)?;
    }
    for page in (AREA..AREA + AREA_SIZE).step_by(PAGE as usize) {
        let bits = match page {
            AREA | ABSENT => 0,
            READ_ONLY => paging::P | paging::US,
            _ if page == ISLAND + PAGE => 0,
            _ => all,
        };
        put(
            entry_address(page),
            if bits == 0 {
                0
            } else {
                page | bits | paging::XD
            },
        )?;
    }
    for page in (TABLES..TABLES + TABLES_SIZE).step_by(PAGE as usize) {
        put(entry_address(page), page | paging::P | paging::RW)?;
    }
    for (selector, descriptor) in [
        (selector::KERNEL_CODE, 0x00af_9b00_0000_ffffu64),
        (selector::KERNEL_DATA, 0x00cf_9300_0000_ffff),
        (selector::USER_CODE32, 0x00cf_fb00_0000_ffff),
        (selector::USER_DATA, 0x00cf_f300_0000_ffff),
        (selector::USER_CODE, 0x00af_fb00_0000_ffff),
    ] {
        put(GDT + u64::from(selector & !7), descriptor)?;
    }
    for vector in 0..256u64 {
        let handler = HANDLERS + vector * HANDLER_SIZE;
        memory.write(handler, &[0xe6, vector as u8, 0xeb, 0xfe])?;
        // Interrupt gate, present, DPL 3 where software may use it, stack 1.
        let dpl = if matches!(vector as u8, exception::BP | exception::OF) {
            3u64
        } else {
            0
        };
        let low = handler & 0xffff
            | u64::from(selector::KERNEL_CODE) << 16
            | 1 << 32
            | (0x8e | dpl << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        put(IDT + vector * 16, low)?;
        put(IDT + vector * 16 + 8, handler >> 32)?;
    }
    for stack in [TSS + 4, TSS + 0x24] {
        put(stack, STACK_TOP)?;
    }
    memory.write(ENTRY, &entry_code())
}

/// Address of the page-table entry that maps `linear`, which lies in code, data or tables.
pub fn entry_address(linear: u64) -> u64 {
    let table = if linear >= TABLES {
        HIGH_TABLE
    } else {
        LOW_TABLE
    };
    table + (linear >> 12 & 0x1ff) * 8
}

/// mov rax, [gs base]; wrgsbase rax; mov rax, [fs base]; wrfsbase rax; mov rax, [rax]; iretq
fn entry_code() -> Vec<u8> {
    let mut code = Vec::new();
    let load = |code: &mut Vec<u8>, address: u64| {
        code.extend([0x48, 0x8b, 0x04, 0x25]);
        code.extend((address as u32).to_le_bytes());
    };
    load(&mut code, ENTRY_DATA);
    code.extend([0xf3, 0x48, 0x0f, 0xae, 0xd8]);
    load(&mut code, ENTRY_DATA + 8);
    code.extend([0xf3, 0x48, 0x0f, 0xae, 0xd0]);
    load(&mut code, ENTRY_DATA + 16);
    code.extend([0x48, 0xcf]);
    code
}

/// The processor at CPL 0, before [`xcr0_code`] has run, for cases of `bits`-bit code.
pub fn system_registers(bits: u32) -> SystemRegisters {
    let segment = |selector, attributes| Segment {
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes(attributes),
        selector,
    };
    let data = segment(selector::KERNEL_DATA, 0xc093);
    // As in a process of Linux: no data segments in 64-bit code, DS and ES in 32-bit code.
    let null = Segment {
        attributes: SegmentAttributes(0x1_0000),
        ..Segment::default()
    };
    let flat = if bits == 32 {
        segment(selector::USER_DATA, 0xc0f3)
    } else {
        null
    };
    SystemRegisters {
        segments: [
            flat,
            segment(selector::KERNEL_CODE, 0xa09b),
            data,
            flat,
            null,
            null,
        ],
        ldtr: Segment {
            attributes: SegmentAttributes(0x1_0082),
            ..Segment::default()
        },
        tr: Segment {
            base: TSS,
            limit: 0x67,
            attributes: SegmentAttributes::TSS_BUSY,
            selector: selector::TSS,
        },
        gdtr: DescriptorTable {
            base: GDT,
            limit: 0x4f,
        },
        idtr: DescriptorTable {
            base: IDT,
            limit: 0xfff,
        },
        cr0: cr::CR0_PE
            | cr::CR0_MP
            | cr::CR0_ET
            | cr::CR0_NE
            | cr::CR0_WP
            | cr::CR0_AM
            | cr::CR0_PG,
        cr2: 0,
        cr3: PML4,
        cr4: cr::CR4_PAE
            | cr::CR4_PGE
            | cr::CR4_OSFXSR
            | cr::CR4_OSXMMEXCPT
            | cr::CR4_FSGSBASE
            | cr::CR4_OSXSAVE,
        cr8: 0,
        efer: cr::EFER_SCE | cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE,
        apic_base: 0,
    }
}

/// XSETBV with all that cases have, then INT3; to be run once from [`CODE`] at CPL 0.
pub fn xcr0_code() -> [u8; 13] {
    let components = layout().components;
    [
        0x31, 0xc9, 0x31, 0xd2, 0xb8, components, 0, 0, 0, 0x0f, 0x01, 0xd1, 0xcc,
    ]
}

/// Registers with which the guest begins [`xcr0_code`].
pub fn start_registers() -> Registers {
    let mut registers = Registers {
        rip: CODE,
        rflags: 2,
        ..Registers::default()
    };
    registers.gpr[4] = STACK_TOP;
    registers
}

/// Prepares `memory` for a case; returns the registers to run with. Vector state is the caller's.
///
/// # Panics
/// If `memory` is not from [`memory`].
pub fn prepare(memory: &GuestMemory, state: &State, ring: Ring) -> Registers {
    let (code, stack) = ring.selectors();
    let values = [
        state.gs_base,
        state.fs_base,
        state.gpr[0],
        state.rip,
        u64::from(code),
        state.rflags,
        state.gpr[4],
        u64::from(stack),
    ];
    let mut bytes = [0; 64];
    for (to, value) in bytes.chunks_mut(8).zip(values) {
        to.copy_from_slice(&value.to_le_bytes());
    }
    memory
        .write(ENTRY_DATA, &bytes)
        .expect("the tables have memory");
    let mut registers = Registers {
        gpr: state.gpr,
        rip: ENTRY,
        rflags: 2,
    };
    registers.gpr[4] = ENTRY_DATA + 24;
    registers
}

/// What the handler of `vector` found: the registers now are those of the handler.
///
/// # Panics
/// If `memory` is not from [`memory`], or the stack pointer is not the handler's.
pub fn outcome(
    memory: &GuestMemory,
    vector: u8,
    registers: &Registers,
    system: &SystemRegisters,
    xsave: &[u8],
) -> Outcome {
    let mut bytes = [0; 48];
    let coded = exception::has_error_code(vector);
    let size = if coded { 48 } else { 40 };
    memory
        .read(registers.gpr[4], &mut bytes[48 - size..])
        .expect("the handler's stack");
    let word = |i: usize| {
        bytes[i * 8..]
            .iter()
            .take(8)
            .rev()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let mut state = State::new();
    state.xsave.copy_from_slice(&xsave[..XSTATE_SIZE]);
    state.gpr = registers.gpr;
    state.gpr[4] = word(4);
    state.rip = word(1);
    state.rflags = word(3);
    state.fs_base = system.segments[4].base;
    state.gs_base = system.segments[5].base;
    Outcome {
        state,
        vector,
        error_code: word(0) as u32,
        address: if vector == exception::PF {
            system.cr2
        } else {
            0
        },
    }
}

/// Sets all data from [`DATA`] on, absent pages left out.
///
/// # Panics
/// If `memory` is not from [`memory`], or the image has not [`IMAGE_SIZE`] bytes.
pub fn write_data(memory: &GuestMemory, image: &[u8]) {
    assert_eq!(image.len(), IMAGE_SIZE);
    let island = (ISLAND - DATA) as usize;
    for (at, part) in [
        (DATA, &image[..4 * PAGE as usize]),
        (ISLAND, &image[island..]),
    ] {
        memory.write(at, part).expect("the data area has memory");
    }
}

/// Copies all data.
///
/// # Panics
/// If `memory` is not from [`memory`], or the image has not [`IMAGE_SIZE`] bytes.
pub fn read_data(memory: &GuestMemory, image: &mut [u8]) {
    assert_eq!(image.len(), IMAGE_SIZE);
    let island = (ISLAND - DATA) as usize;
    memory
        .read(DATA, &mut image[..4 * PAGE as usize])
        .expect("the data area has memory");
    memory
        .read(ISLAND, &mut image[island..])
        .expect("the data area has memory");
}

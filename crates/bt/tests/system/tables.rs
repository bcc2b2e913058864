//! Page tables, descriptor tables and handlers of the machine, and where they are.

use ringfence_engine::{DescriptorTable, GuestMemory, Segment, SegmentAttributes, SystemRegisters};
use ringfence_x86::{cr, paging};

/// Bytes of guest memory.
pub const MEMORY_SIZE: u64 = 32 << 20;

/// 64-bit code, DPL 0.
pub const KERNEL_CODE: u16 = 0x10;
/// Data, DPL 0.
pub const KERNEL_DATA: u16 = 0x18;
/// 32-bit code, DPL 3.
pub const USER_CODE32: u16 = 0x23;
/// Data, DPL 3.
pub const USER_DATA: u16 = 0x2b;
/// 64-bit code, DPL 3.
pub const USER_CODE: u16 = 0x33;
/// 32-bit code, DPL 0.
pub const KERNEL_CODE32: u16 = 0x38;
/// 16-bit code, DPL 0.
pub const KERNEL_CODE16: u16 = 0x40;
/// 16-bit data, DPL 0.
pub const KERNEL_DATA16: u16 = 0x48;
/// First of eight descriptors that tests may set.
pub const FREE: u16 = 0x50;
/// Task-state segment of the first processor; the others follow, 16 bytes each.
pub const TASK: u16 = 0x90;

const PML4: u64 = 0x10_0000;
const PDPT: u64 = 0x10_1000;
/// Page directory of the first gigabyte.
pub const DIRECTORY: u64 = 0x10_2000;
const CHIPS_DIRECTORY: u64 = 0x10_3000;
/// Page table of the first 2 MiB; those of the others follow.
pub const PAGE_TABLES: u64 = 0x11_0000;
/// Global descriptor table.
pub const GDT: u64 = 0x14_0000;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x14_1000;
/// Task-state segments, 128 bytes each.
pub const TSS: u64 = 0x14_2000;
/// Handlers, 16 bytes each.
pub const HANDLERS: u64 = 0x14_3000;
/// An IRETQ.
pub const ENTRY: u64 = 0x14_5000;
/// Top of the first processor's stack.
pub const STACK: u64 = 0x16_0000;
/// Top of the stacks on which privilege level 0 is entered; 16 KiB each.
pub const ENTRY_STACK: u64 = 0x17_0000;
/// Tops of the stacks of the interrupt-stack table.
pub const IST: u64 = 0x1a_0000;
/// Supervisor code.
pub const CODE: u64 = 0x20_0000;
/// Supervisor data.
pub const DATA: u64 = 0x30_0000;
/// Start of what user code may access, and user code.
pub const USER: u64 = 0x40_0000;
/// User data.
pub const USER_DATA_PAGE: u64 = 0x60_0000;
/// Top of the user stack.
pub const USER_STACK: u64 = 0x58_0000;
const USER_END: u64 = 0x80_0000;
/// Memory that tests may use as they like.
pub const SPARE: u64 = 0x80_0000;

/// Present, writable.
pub const RW: u64 = paging::P | paging::RW;
/// Present, writable, for user code.
pub const URW: u64 = RW | paging::US;

/// Address of the page-table entry of `linear`, which lies below [`MEMORY_SIZE`].
pub fn entry_of(linear: u64) -> u64 {
    assert!(linear < MEMORY_SIZE);
    PAGE_TABLES + (linear >> 12) * 8
}

/// Address of the page-directory entry of `linear`.
pub fn directory_entry_of(linear: u64) -> u64 {
    DIRECTORY + (linear >> 21) * 8
}

/// Address of an entry of the top-level table.
pub fn pml4_entry(index: u64) -> u64 {
    PML4 + index * 8
}

/// Address of an entry of the first page-directory-pointer table.
pub fn pdpt_entry(index: u64) -> u64 {
    PDPT + index * 8
}

fn put(memory: &GuestMemory, at: u64, value: u64) {
    memory
        .write(at, &value.to_le_bytes())
        .expect("tables have memory");
}

/// A 64-bit interrupt gate.
pub fn gate(memory: &GuestMemory, vector: u8, handler: u64, dpl: u64, stack: u64) {
    let low = handler & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | stack << 32
        | (0x8e | dpl << 5) << 40
        | (handler >> 16 & 0xffff) << 48;
    put(memory, IDT + u64::from(vector) * 16, low);
    put(memory, IDT + u64::from(vector) * 16 + 8, handler >> 32);
}

/// Writes everything.
pub fn write_tables(memory: &GuestMemory, vcpus: u32) {
    put(memory, PML4, PDPT | URW);
    put(memory, PDPT, DIRECTORY | URW);
    put(memory, PDPT + 3 * 8, CHIPS_DIRECTORY | URW);
    for chip in [0xfec0_0000u64, 0xfee0_0000] {
        put(
            memory,
            CHIPS_DIRECTORY + (chip >> 21 & 0x1ff) * 8,
            chip | RW | paging::PS,
        );
    }
    for large in 0..MEMORY_SIZE >> 21 {
        put(
            memory,
            DIRECTORY + large * 8,
            (PAGE_TABLES + large * 0x1000) | URW,
        );
    }
    for page in (0..MEMORY_SIZE).step_by(0x1000) {
        let user = (USER..USER_END).contains(&page);
        put(memory, entry_of(page), page | if user { URW } else { RW });
    }
    for (selector, descriptor) in [
        (KERNEL_CODE, 0x00af_9b00_0000_ffffu64),
        (KERNEL_DATA, 0x00cf_9300_0000_ffff),
        (USER_CODE32, 0x00cf_fb00_0000_ffff),
        (USER_DATA, 0x00cf_f300_0000_ffff),
        (USER_CODE, 0x00af_fb00_0000_ffff),
        (KERNEL_CODE32, 0x00cf_9b00_0000_ffff),
        (KERNEL_CODE16, 0x0000_9b00_0000_ffff),
        (KERNEL_DATA16, 0x0000_9300_0000_ffff),
    ] {
        put(memory, GDT + u64::from(selector & !7), descriptor);
    }
    for vcpu in 0..u64::from(vcpus) {
        let tss = TSS + vcpu * 0x80;
        let at = GDT + u64::from(TASK) + vcpu * 16;
        put(
            memory,
            at,
            0x0000_8900_0000_0067 | (tss & 0xff_ffff) << 16 | (tss >> 24) << 56,
        );
        put(memory, at + 8, 0);
        put(memory, tss + 4, ENTRY_STACK + vcpu * 0x4000);
        // The I/O permission bitmap begins behind the limit: no ports for user code.
        memory
            .write(tss + 0x66, &0x68u16.to_le_bytes())
            .expect("tables have memory");
        for stack in 0..7 {
            put(
                memory,
                tss + 0x24 + stack * 8,
                IST + stack * 0x1000 + vcpu * 0x7000,
            );
        }
    }
    for vector in 0..=255u8 {
        let handler = HANDLERS + u64::from(vector) * 16;
        // out STOP, al; jmp $
        memory
            .write(handler, &[0xe6, super::STOP, 0xeb, 0xfe])
            .expect("handlers have memory");
        let dpl = if matches!(vector, 3 | 4) || vector >= 0x80 {
            3
        } else {
            0
        };
        gate(memory, vector, handler, dpl, 0);
    }
    memory
        .write(ENTRY, &[0x48, 0xcf])
        .expect("the entry has memory");
}

/// A flat segment.
pub fn flat(selector: u16, attributes: u32) -> Segment {
    let attributes = SegmentAttributes(attributes);
    Segment {
        base: 0,
        limit: u32::MAX,
        attributes,
        selector,
    }
}

/// The first processor in 64-bit mode at privilege level 0.
pub fn long_mode() -> SystemRegisters {
    let data = flat(KERNEL_DATA, 0xc093);
    SystemRegisters {
        segments: [data, flat(KERNEL_CODE, 0xa09b), data, data, data, data],
        ldtr: Segment {
            attributes: SegmentAttributes(0x1_0082),
            ..Segment::default()
        },
        tr: Segment {
            base: TSS,
            limit: 0x67,
            attributes: SegmentAttributes::TSS_BUSY,
            selector: TASK,
        },
        gdtr: DescriptorTable {
            base: GDT,
            limit: 0xfff,
        },
        idtr: DescriptorTable {
            base: IDT,
            limit: 0xfff,
        },
        cr0: cr::CR0_PE | cr::CR0_MP | cr::CR0_ET | cr::CR0_NE | cr::CR0_WP | cr::CR0_PG,
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

//! KVM's register structures and those of the contract, from one to the other.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use ringfence_engine::{DescriptorTable, Registers, Segment, SegmentAttributes, SystemRegisters};

/// General registers from KVM's structure.
pub fn general(r: &kvm_regs) -> Registers {
    Registers {
        gpr: [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
    }
}

/// General registers as KVM's structure.
pub fn to_general(registers: &Registers) -> kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = registers.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: registers.rip,
        rflags: registers.rflags | 2,
    }
}

fn segment(s: &kvm_segment) -> Segment {
    let bit = |value: u8, at: u32| u32::from(value & 1) << at;
    let attributes = u32::from(s.type_ & 0xf)
        | bit(s.s, 4)
        | u32::from(s.dpl & 3) << 5
        | bit(s.present, 7)
        | bit(s.avl, 12)
        | bit(s.l, 13)
        | bit(s.db, 14)
        | bit(s.g, 15)
        | bit(s.unusable, 16);
    Segment {
        base: s.base,
        limit: s.limit,
        attributes: SegmentAttributes(attributes),
        selector: s.selector,
    }
}

fn to_segment(segment: &Segment) -> kvm_segment {
    let bit = |at: u32| (segment.attributes.0 >> at & 1) as u8;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: (segment.attributes.0 & 0xf) as u8,
        s: bit(4),
        dpl: segment.attributes.dpl(),
        present: bit(7),
        avl: bit(12),
        l: bit(13),
        db: bit(14),
        g: bit(15),
        unusable: bit(16),
        padding: 0,
    }
}

fn table(t: &kvm_dtable) -> DescriptorTable {
    DescriptorTable {
        base: t.base,
        limit: t.limit,
    }
}

fn to_table(table: DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}

/// System registers from KVM's structure.
pub fn system(s: &kvm_sregs) -> SystemRegisters {
    SystemRegisters {
        segments: [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs].map(segment),
        ldtr: segment(&s.ldt),
        tr: segment(&s.tr),
        gdtr: table(&s.gdt),
        idtr: table(&s.idt),
        cr0: s.cr0,
        cr2: s.cr2,
        cr3: s.cr3,
        cr4: s.cr4,
        cr8: s.cr8,
        efer: s.efer,
        apic_base: s.apic_base,
    }
}

/// Changes KVM's structure to `registers`.
pub fn to_system(registers: &SystemRegisters, s: &mut kvm_sregs) {
    let [es, cs, ss, ds, fs, gs] = registers.segments.map(|segment| to_segment(&segment));
    (s.es, s.cs, s.ss, s.ds, s.fs, s.gs) = (es, cs, ss, ds, fs, gs);
    s.ldt = to_segment(&registers.ldtr);
    s.tr = to_segment(&registers.tr);
    s.gdt = to_table(registers.gdtr);
    s.idt = to_table(registers.idtr);
    (s.cr0, s.cr2, s.cr3) = (registers.cr0 | 1 << 4, registers.cr2, registers.cr3);
    (s.cr4, s.cr8, s.efer) = (registers.cr4, registers.cr8, registers.efer);
    if registers.apic_base != 0 {
        s.apic_base = registers.apic_base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_of_a_segment_comes_back() {
        for bit in [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16] {
            let value = Segment {
                base: 0x1234_5678_9abc_def0,
                limit: 0xfedc_ba98,
                attributes: SegmentAttributes(1 << bit),
                selector: 0x1235,
            };
            assert_eq!(segment(&to_segment(&value)), value);
        }
    }

    #[test]
    fn every_general_register_comes_back() {
        let registers = Registers {
            gpr: std::array::from_fn(|index| index as u64 + 100),
            rip: 7,
            rflags: 0x246,
        };
        assert_eq!(general(&to_general(&registers)), registers);
    }
}

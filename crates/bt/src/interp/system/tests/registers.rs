//! Control, debug and model-specific registers, time and interrupt flag.

use ringfence_x86::{exception as ex, flags, msr};

use super::super::{set_cr0, set_cr3, set_cr4, set_efer};
use super::*;
use crate::cpu::{RAX, RBX, RCX, RDX};

const RDMSR: &[u8] = &[0x0f, 0x32];
const WRMSR: &[u8] = &[0x0f, 0x30];

fn write(cpu: &mut Cpu, env: &mut Mock, index: u32, value: u64) -> Result<(), Trap> {
    cpu.gpr[RCX] = u64::from(index);
    cpu.gpr[RAX] = value & 0xffff_ffff;
    cpu.gpr[RDX] = value >> 32;
    run(cpu, env, WRMSR)
}

fn read(cpu: &mut Cpu, env: &mut Mock, index: u32) -> Result<u64, Trap> {
    cpu.gpr[RCX] = u64::from(index);
    run(cpu, env, RDMSR)?;
    Ok(cpu.gpr[RDX] << 32 | cpu.gpr[RAX])
}

#[test]
fn model_specific_registers() {
    let (mut cpu, mut env) = long();
    for (index, value) in [
        (msr::IA32_STAR, u64::MAX),
        (msr::IA32_LSTAR, 0xffff_8000_0000_1000),
        (msr::IA32_CSTAR, 0x1000),
        (msr::IA32_FMASK, 0x4_7700),
        (msr::IA32_FS_BASE, 0x7fff_ffff_f000),
        (msr::IA32_GS_BASE, 0xffff_8000_0000_0000),
        (msr::IA32_KERNEL_GS_BASE, 0x1234),
        (msr::IA32_SYSENTER_CS, 0x10),
        (msr::IA32_SYSENTER_ESP, 0x2000),
        (msr::IA32_SYSENTER_EIP, 0x3000),
        (msr::IA32_TSC_AUX, 0xffff_ffff),
        (msr::IA32_PAT, 0x0007_0105_0007_0106),
        (msr::IA32_MTRR_DEF_TYPE, 0xc06),
        (0x200, 0x8000_0006),
        (0x20f, 0xff_f800_0800),
        (0x250, 0x0606_0606_0606_0606),
        (0x26f, 0x0505_0505_0505_0505),
        (msr::IA32_TSC_ADJUST, 55),
    ] {
        assert_eq!(write(&mut cpu, &mut env, index, value), Ok(()), "{index:x}");
        assert_eq!(read(&mut cpu, &mut env, index), Ok(value), "{index:x}");
    }
    for (index, value) in [
        (msr::IA32_LSTAR, 1 << 47),
        (msr::IA32_KERNEL_GS_BASE, 1 << 48),
        (msr::IA32_GS_BASE, 1 << 63),
        (msr::IA32_TSC_AUX, 1 << 32),
        (msr::IA32_PAT, 2),
        (msr::IA32_PAT, 8 << 56),
        (msr::IA32_MTRR_DEF_TYPE, 7),
        (msr::IA32_MTRR_DEF_TYPE, 1 << 9),
        (0x200, 0x106),
        (0x201, 0x400),
        (0x250, 7),
        (msr::IA32_MTRRCAP, 0),
        (msr::IA32_MCG_CAP, 0),
        (msr::IA32_EFER, 1 << 1),
        (0xdead, 0),
    ] {
        assert_eq!(
            write(&mut cpu, &mut env, index, value),
            Err(Trap::GP0),
            "{index:x}"
        );
    }
    assert_eq!(read(&mut cpu, &mut env, msr::IA32_MTRRCAP), Ok(0x508));
    assert_eq!(read(&mut cpu, &mut env, 0xdead), Err(Trap::GP0));
    to_user(&mut cpu);
    assert_eq!(read(&mut cpu, &mut env, msr::IA32_TSC), Err(Trap::GP0));
}

#[test]
fn writing_the_tsc_moves_its_adjustment() {
    let (mut cpu, mut env) = long();
    env.tsc = 1000;
    write(&mut cpu, &mut env, msr::IA32_TSC, 5000).unwrap();
    assert_eq!(cpu.msr.tsc_adjust, 4000);
    assert_eq!(read(&mut cpu, &mut env, msr::IA32_TSC), Ok(5000));
    run(&mut cpu, &mut env, &[0x0f, 0x31]).unwrap();
    assert_eq!((cpu.gpr[RAX], cpu.gpr[RDX]), (5000, 0));
    cpu.cr4 |= cr::CR4_TSD;
    cpu.msr.tsc_aux = 7;
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0xf9]).unwrap();
    assert_eq!(cpu.gpr[RCX], 7);
    to_user(&mut cpu);
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x31]), Err(Trap::GP0));
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x01, 0xf9]), Err(Trap::GP0));
}

#[test]
fn long_mode_starts_and_ends() {
    let (mut cpu, mut env) = protected();
    set_efer(&mut cpu, &mut env, cr::EFER_LME | cr::EFER_NXE).unwrap();
    let enabled = cpu.cr0 | cr::CR0_PG;
    assert_eq!(
        set_cr0(&mut cpu, &mut env, enabled),
        Err(Trap::GP0),
        "without PAE"
    );
    set_cr4(&mut cpu, &mut env, cr::CR4_PAE).unwrap();
    set_cr0(&mut cpu, &mut env, enabled).unwrap();
    assert!(cpu.long_mode() && !cpu.mode64());
    assert_eq!(
        set_efer(&mut cpu, &mut env, 0),
        Err(Trap::GP0),
        "LME under paging"
    );
    assert_eq!(set_cr4(&mut cpu, &mut env, 0), Err(Trap::GP0), "PAE off");
    // LMA is not the guest's to write.
    set_efer(&mut cpu, &mut env, cr::EFER_LME).unwrap();
    assert!(cpu.long_mode());
    cpu.seg[CS].attributes = SegmentAttributes::CODE64;
    let disabled = cpu.cr0 & !cr::CR0_PG;
    assert_eq!(
        set_cr0(&mut cpu, &mut env, disabled),
        Err(Trap::GP0),
        "from 64-bit mode"
    );
    cpu.seg[CS].attributes = SegmentAttributes::CODE32;
    set_cr0(&mut cpu, &mut env, disabled).unwrap();
    assert!(!cpu.long_mode());
}

#[test]
fn control_register_values() {
    let (mut cpu, mut env) = long();
    let cr0 = cpu.cr0;
    for value in [
        cr0 & !cr::CR0_PE,
        cr0 | cr::CR0_NW & !cr::CR0_CD,
        cr0 | 1 << 32,
    ] {
        let value = if value & cr::CR0_NW != 0 {
            value & !cr::CR0_CD
        } else {
            value
        };
        assert_eq!(
            set_cr0(&mut cpu, &mut env, value),
            Err(Trap::GP0),
            "{value:x}"
        );
    }
    assert_eq!(cpu.cr0, cr0);
    env.flushes.clear();
    set_cr0(&mut cpu, &mut env, cr0 | cr::CR0_WP).unwrap();
    set_cr3(&mut cpu, &mut env, 0x1234_5000).unwrap();
    assert_eq!(env.flushes, [Flush::All, Flush::NonGlobal]);
    assert_eq!(set_cr3(&mut cpu, &mut env, 1 << 62), Err(Trap::GP0));
    env.flushes.clear();
    set_cr4(&mut cpu, &mut env, cr::CR4_PAE | cr::CR4_PGE | cr::CR4_SMEP).unwrap();
    assert_eq!(env.flushes, [Flush::All]);
    for bit in [cr::CR4_LA57, 1 << 13, 1 << 22, 1 << 63] {
        assert_eq!(
            set_cr4(&mut cpu, &mut env, cr::CR4_PAE | bit),
            Err(Trap::GP0),
            "{bit:x}"
        );
    }
    // MOV CR8, RAX
    cpu.gpr[RAX] = 16;
    assert_eq!(
        run(&mut cpu, &mut env, &[0x44, 0x0f, 0x22, 0xc0]),
        Err(Trap::GP0)
    );
    // LMSW can't clear PE.
    cpu.gpr[RAX] = u64::from(false);
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0xf0]).unwrap();
    assert_ne!(cpu.cr0 & cr::CR0_PE, 0);
    to_user(&mut cpu);
    for code in [
        &[0x0f, 0x20, 0xc0][..],
        &[0x0f, 0x22, 0xd8],
        &[0x0f, 0x06],
        &[0xf4],
        &[0x0f, 0x09],
    ] {
        assert_eq!(run(&mut cpu, &mut env, code), Err(Trap::GP0), "{code:x?}");
    }
    // SMSW is allowed without UMIP.
    run(&mut cpu, &mut env, &[0x48, 0x0f, 0x01, 0xe3]).unwrap();
    assert_eq!(cpu.gpr[RBX], cpu.cr0);
    cpu.cr4 |= cr::CR4_UMIP;
    assert_eq!(
        run(&mut cpu, &mut env, &[0x48, 0x0f, 0x01, 0xe3]),
        Err(Trap::GP0)
    );
}

#[test]
fn debug_registers() {
    let (mut cpu, mut env) = long();
    // MOV DR7, RAX
    let write = [0x0f, 0x23, 0xf8];
    cpu.gpr[RAX] = 1 << 32;
    assert_eq!(run(&mut cpu, &mut env, &write), Err(Trap::GP0));
    cpu.gpr[RAX] = 0xffff_ffff;
    run(&mut cpu, &mut env, &write).unwrap();
    assert_eq!(cpu.dr[7], 0xffff_27ff);
    // General detect.
    assert_eq!(run(&mut cpu, &mut env, &write), Err(Trap::fault(ex::DB)));
    assert_ne!(cpu.dr[6] & 1 << 13, 0);
    cpu.dr[7] = 0x400;
    // MOV DR4, RAX is DR6 until CR4.DE.
    cpu.gpr[RAX] = 0;
    run(&mut cpu, &mut env, &[0x0f, 0x23, 0xe0]).unwrap();
    assert_eq!(cpu.dr[6], 0xffff_0ff0);
    cpu.cr4 |= cr::CR4_DE;
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x23, 0xe0]), Err(Trap::UD));
}

#[test]
fn interrupt_flag() {
    let (mut cpu, mut env) = long();
    run(&mut cpu, &mut env, &[0xfb]).unwrap();
    assert!(cpu.interrupt_shadow);
    cpu.interrupt_shadow = false;
    run(&mut cpu, &mut env, &[0xfb]).unwrap();
    assert!(!cpu.interrupt_shadow, "IF was set before");
    run(&mut cpu, &mut env, &[0xfa]).unwrap();
    assert_eq!(cpu.rflags & flags::IF, 0);
    run(&mut cpu, &mut env, &[0xf4]).unwrap();
    assert!(cpu.halted);
    to_user(&mut cpu);
    assert_eq!(run(&mut cpu, &mut env, &[0xfa]), Err(Trap::GP0));
    cpu.cr4 |= cr::CR4_PVI;
    run(&mut cpu, &mut env, &[0xfb]).unwrap();
    assert_ne!(cpu.rflags & flags::VIF, 0);
}

#[test]
fn descriptor_table_registers() {
    let (mut cpu, mut env) = long();
    cpu.gpr[RAX] = DATA;
    env.put(DATA, 2, 0x7f);
    env.put(DATA + 2, 8, 0xffff_8000_0000_2000);
    // LGDT [RAX], then SGDT [RAX]
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0x10]).unwrap();
    assert_eq!(
        cpu.gdtr,
        DescriptorTable {
            base: 0xffff_8000_0000_2000,
            limit: 0x7f
        }
    );
    env.memory[DATA as usize..][..10].fill(0);
    run(&mut cpu, &mut env, &[0x0f, 0x01, 0x00]).unwrap();
    assert_eq!(env.get(DATA + 2, 8), 0xffff_8000_0000_2000);
    env.put(DATA + 2, 8, 1 << 47);
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x01, 0x10]), Err(Trap::GP0));
    // A 16-bit operand size loads 24 bits of base.
    let (mut cpu, mut env) = protected();
    cpu.gpr[RAX] = DATA;
    env.put(DATA, 6, 0x8765_4321_0fff);
    run(&mut cpu, &mut env, &[0x66, 0x0f, 0x01, 0x18]).unwrap();
    assert_eq!(
        cpu.idtr,
        DescriptorTable {
            base: 0x65_4321,
            limit: 0xfff
        }
    );
    cpu.cr4 |= cr::CR4_UMIP;
    to_user(&mut cpu);
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x01, 0x08]), Err(Trap::GP0));
    assert_eq!(run(&mut cpu, &mut env, &[0x0f, 0x00, 0xc8]), Err(Trap::GP0));
}

#[test]
fn what_is_not_offered_does_not_exist() {
    let (mut cpu, mut env) = long();
    for code in [
        &[0x0f, 0x01, 0xc8][..],
        &[0x0f, 0x01, 0xc9],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd9],
        &[0x0f, 0x0b],
        &[0x0f, 0xaa],
    ] {
        assert_eq!(run(&mut cpu, &mut env, code), Err(Trap::UD), "{code:x?}");
    }
}

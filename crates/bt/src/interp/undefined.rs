//! Flags that the architecture leaves undefined, as the host's processor sets them.
//!
//! Translated code has them from the host. The interpreter asks once, with a few examples of each
//! class, what becomes of each such flag, so that both agree wherever the guest looks.

use std::arch::asm;
use std::sync::LazyLock;

use iced_x86::{Instruction, Mnemonic, RflagsBits};
use ringfence_x86::flags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};

use super::arithmetic::szp;

/// Instructions that treat undefined flags alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// MUL and IMUL.
    Multiply,
    /// DIV and IDIV.
    Divide,
    /// SHL, SHR, SAR, SHLD, SHRD with a count other than zero.
    Shift,
    /// BSF and BSR.
    Scan,
    /// TZCNT and LZCNT.
    Count,
    /// BEXTR.
    Extract,
}

const CLASSES: usize = 6;

/// What becomes of the undefined flags; those in none of the masks follow the result.
#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    undefined: u64,
    kept: u64,
    set: u64,
    cleared: u64,
}

static RULES: LazyLock<[Rule; CLASSES]> = LazyLock::new(probe);

/// The flags, in the bits of `iced_x86::RflagsBits`, that the host may leave as they were although
/// the instruction makes them undefined.
pub fn kept(instruction: &Instruction) -> u32 {
    use Mnemonic as M;
    let class = match instruction.mnemonic() {
        // AF is cleared by every processor.
        M::And | M::Or | M::Xor | M::Test => return 0,
        M::Mul | M::Imul => Class::Multiply,
        M::Div | M::Idiv => Class::Divide,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd => Class::Shift,
        M::Bsf | M::Bsr => Class::Scan,
        M::Tzcnt | M::Lzcnt => Class::Count,
        M::Bextr => Class::Extract,
        _ => return instruction.rflags_undefined(),
    };
    let kept = RULES[class as usize].kept;
    let bits = [
        (OF, RflagsBits::OF),
        (SF, RflagsBits::SF),
        (ZF, RflagsBits::ZF),
        (AF, RflagsBits::AF),
        (CF, RflagsBits::CF),
        (PF, RflagsBits::PF),
    ];
    bits.into_iter()
        .filter(|(flag, _)| kept & flag != 0)
        .fold(0, |mask, (_, bit)| mask | bit)
}

/// `rflags`, which an instruction of `class` made of `before`, with its undefined flags settled.
pub fn settle(class: Class, before: u64, rflags: u64, result: u64, size: usize) -> u64 {
    let rule = &RULES[class as usize];
    let follows = rule.undefined & !(rule.kept | rule.set | rule.cleared);
    let defined = rflags & !rule.undefined;
    let computed = szp(result, size) & follows & (SF | ZF | PF) | rflags & follows & (CF | OF | AF);
    defined | computed | before & rule.kept | rule.set
}

/// One example: the instruction, run on the host with `flags`; the arithmetic flags after it.
macro_rules! example {
    ($instruction:literal, $a:expr, $c:expr, $flags:expr) => {{
        let (a, c): (u64, u64) = ($a, $c);
        let mut flags: u64 = $flags;
        // SAFETY: the instruction works on scratch registers; POPF sets arithmetic flags alone.
        unsafe {
            asm!(
                "push {f}", "popfq", $instruction, "pushfq", "pop {f}",
                f = inout(reg) flags,
                inout("rax") a => _,
                inout("rdx") 0u64 => _,
                in("rcx") c,
            );
        }
        flags & ARITHMETIC
    }};
}

/// Pairs of operands from which every flag that depends on them shows it.
const OPERANDS: [(u64, u64); 6] = [
    (1, 1),
    (3, 5),
    (0x8000_0000_0000_0000, 3),
    (0, 7),
    (0x1234_5678_9abc_def0, 0x22),
    (u64::MAX, 6),
];

fn rule(undefined: u64, run: impl Fn(u64, u64, u64) -> u64) -> Rule {
    // Bit 1 of RFLAGS is always set; interrupts stay on.
    let base = 0x202;
    let mut rule = Rule {
        undefined,
        kept: undefined,
        set: undefined,
        cleared: undefined,
    };
    for (a, c) in OPERANDS {
        let (zeros, ones) = (run(a, c, base), run(a, c, base | ARITHMETIC));
        rule.kept &= ones & !zeros;
        rule.set &= ones & zeros;
        rule.cleared &= !(ones | zeros);
    }
    rule
}

fn probe() -> [Rule; CLASSES] {
    let mut rules = [Rule::default(); CLASSES];
    let mut add = |class: Class, rule| rules[class as usize] = rule;
    add(
        Class::Multiply,
        rule(SF | ZF | AF | PF, |a, c, f| {
            example!("imul rax, rcx", a, c, f)
        }),
    );
    add(
        Class::Divide,
        rule(ARITHMETIC, |a, c, f| example!("div rcx", a, c, f)),
    );
    add(
        Class::Shift,
        rule(AF, |a, c, f| example!("shl rax, cl", a, c & 7, f)),
    );
    add(
        Class::Scan,
        rule(CF | PF | AF | SF | OF, |a, c, f| {
            example!("bsf rax, rcx", a, c << (a & 7), f)
        }),
    );
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("lzcnt") {
        add(
            Class::Count,
            rule(PF | AF | SF | OF, |a, c, f| {
                example!("tzcnt rax, rcx", a, c, f)
            }),
        );
        add(
            Class::Extract,
            rule(PF | AF | SF, |a, c, f| {
                example!("bextr rax, rcx, rax", a & 0x303f, c, f)
            }),
        );
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_has_the_flags_of_the_host() {
        for (a, c) in OPERANDS {
            for before in [0x202, 0x202 | ARITHMETIC] {
                let host = example!("imul rax, rcx", a, c, before);
                let (low, wide) = ((a.wrapping_mul(c)), (a as i64 as i128) * (c as i64 as i128));
                let overflow = if wide == low as i64 as i128 {
                    0
                } else {
                    CF | OF
                };
                let settled = settle(Class::Multiply, before, overflow, low, 8);
                assert_eq!(settled & ARITHMETIC, host, "{a:#x} * {c:#x}");
            }
        }
    }

    #[test]
    fn a_shift_has_the_auxiliary_carry_of_the_host() {
        for before in [0x202, 0x202 | ARITHMETIC] {
            let host = example!("shr rax, cl", 0x1234, 4, before);
            let settled = settle(Class::Shift, before, 0, 0x123, 8);
            assert_eq!(settled & AF, host & AF);
        }
    }
}

//! What differs between two runs of a case.

use std::fmt::Write as _;

use crate::generate::Case;
use crate::layout::{DATA, PAGE, READ_ONLY};
use crate::state::{Outcome, State, layout};

/// RFLAGS bits that are compared: the arithmetic ones, DF, NT, AC and ID.
pub const FLAGS: u64 = 0x24_4cd5;

/// How strictly runs are compared.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Flags that may differ, as the architecture leaves them undefined.
    pub undefined_flags: u64,
    /// The runs had different privilege: page-fault error codes differ in U.
    pub privilege: bool,
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The differences, one per line; empty if there are none.
pub fn differences(
    expected: &Outcome,
    expected_data: &[u8],
    found: &Outcome,
    found_data: &[u8],
    rules: Rules,
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, expected: u64, found: u64| {
        if expected != found {
            let _ = writeln!(text, "  {name}: expected {expected:#x}, found {found:#x}");
        }
    };
    line("vector", expected.vector.into(), found.vector.into());
    let ignored = if rules.privilege { 4 } else { 0 };
    line(
        "error code",
        (expected.error_code & !ignored).into(),
        (found.error_code & !ignored).into(),
    );
    line("cr2", expected.address, found.address);
    let (a, b) = (&expected.state, &found.state);
    line("rip", a.rip, b.rip);
    for (i, name) in NAMES.iter().enumerate() {
        line(name, a.gpr[i], b.gpr[i]);
    }
    let mask = FLAGS & !rules.undefined_flags;
    line("rflags", a.rflags & mask, b.rflags & mask);
    line("fs base", a.fs_base, b.fs_base);
    line("gs base", a.gs_base, b.gs_base);
    let (x, y) = (a.normal_xsave(), b.normal_xsave());
    for at in (0..x.len())
        .step_by(8)
        .filter(|&at| x[at..at + 8] != y[at..at + 8])
    {
        line(&field(at), word(&x, at), word(&y, at));
    }
    if expected_data != found_data {
        let differ = |at: &usize| expected_data[*at..*at + 8] != found_data[*at..*at + 8];
        for at in (0..expected_data.len()).step_by(8).filter(differ).take(12) {
            let name = format!("memory {:#x}", DATA + at as u64);
            line(&name, word(expected_data, at), word(found_data, at));
        }
    }
    text
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .iter()
        .take(8)
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Name of the 8 bytes at `at` of an XSAVE image.
fn field(at: usize) -> String {
    let half = if at.is_multiple_of(16) { "low" } else { "high" };
    match at {
        0 => "x87 control, status, tags".to_owned(),
        24 => "mxcsr".to_owned(),
        32..160 => format!("st{} {half}", (at - 32) / 16),
        160..416 => format!("xmm{} {half}", (at - 160) / 16),
        _ => layout().name(at),
    }
}

/// A case with its inputs, for a report.
pub fn describe(case: &Case) -> String {
    let mut text = String::new();
    let bits = if case.compatibility { 32 } else { 64 };
    let list = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let _ = writeln!(text, "{}  {}", list(&case.bytes), case.text());
    let whole = case.code();
    if whole.len() != case.bytes.len() {
        let code = crate::generate::disassemble(&whole, case.state.rip, bits);
        let _ = writeln!(text, "  in {}  {code}", list(&whole));
    }
    text.push_str(&registers(&case.state));
    for (at, bytes) in &case.pokes {
        let _ = writeln!(text, "  memory {at:#x} = {}", list(bytes));
    }
    let _ = writeln!(
        text,
        "  (data {DATA:#x}, read-only {READ_ONLY:#x}, absent {:#x})",
        READ_ONLY + PAGE
    );
    text
}

/// Registers, for a report.
pub fn registers(state: &State) -> String {
    let mut text = String::new();
    for (i, name) in NAMES.iter().enumerate() {
        let end = if i % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "  {name}={:016x}{end}", state.gpr[i]);
    }
    let _ = writeln!(
        text,
        "  rip={:016x}   rflags={:08x}   fs={:x} gs={:x}",
        state.rip, state.rflags, state.fs_base, state.gs_base
    );
    for index in (0..8).filter(|_| !layout().component(5).is_empty()) {
        let end = if index == 7 { '\n' } else { ' ' };
        let _ = write!(text, "  k{index}={:x}{end}", state.opmask(index));
    }
    let x = &state.xsave;
    let _ = writeln!(
        text,
        "  fcw={:04x} fsw={:04x} tags={:02x} mxcsr={:08x}",
        word(x, 0) & 0xffff,
        word(x, 2) & 0xffff,
        x[4],
        word(x, 24) as u32
    );
    text
}

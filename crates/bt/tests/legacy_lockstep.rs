//! Random programs of 16- and 32-bit code with segments of all kinds, in real, virtual-8086 and
//! protected mode: the whole engine against its interpreter alone.
//!
//! `RINGFENCE_FUZZ_SEED` is the first program, `RINGFENCE_STRESS` makes more of them.

mod legacy;

use legacy::machine::{Setting, run_both};
use legacy::program::program;
use ringfence_testkit::Random;

const CASES: u64 = 500;

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn compare(setting: Setting) {
    let first = number("RINGFENCE_FUZZ_SEED", 1);
    let cases = CASES * number("RINGFENCE_STRESS", 1);
    let mut both = legacy::machine::Both::new();
    let (mut ended, mut steps) = (0, 0);
    for seed in first..first + cases {
        let mut random = Random::new(seed);
        let state = both.prepare(&mut random, setting);
        let code = program(&mut random, &state);
        let result = run_both(&mut both, &state, &code);
        match result {
            Ok(run) => {
                ended += u64::from(run.ended);
                steps += run.steps;
            }
            Err(text) => panic!("{setting:?}, seed {seed}: {text}"),
        }
    }
    println!("{setting:?}: {cases} programs, {ended} to their end, {steps} instructions");
    assert!(ended * 16 > cases, "{ended} programs ran to their end");
}

#[test]
fn real_mode() {
    compare(Setting::Real);
}

#[test]
fn real_mode_with_large_limits() {
    compare(Setting::Unreal);
}

#[test]
fn virtual_8086_mode() {
    compare(Setting::Virtual8086);
}

#[test]
fn protected_mode_16_bits() {
    compare(Setting::Protected16);
}

#[test]
fn protected_mode_32_bits() {
    compare(Setting::Protected32);
}

//! Random programs of many instructions, on the host's processor, the interpreter and the
//! translator.
//!
//! `RINGFENCE_DIFF_CASES` and `RINGFENCE_DIFF_SEED` as for the single instructions. A failure
//! prints the program and the first instruction before which the results differ.

mod common;

use common::{Interpreted, Machine, Translated, number};
use ringfence_bt::interp::system::cpuid::CpuidModel;
use ringfence_testkit::compare::{FLAGS, Rules, differences, registers};
use ringfence_testkit::generate::{Generator, Program, disassemble, fill_data};
use ringfence_testkit::guest::Ring;
use ringfence_testkit::layout::{CODE, CODE_SIZE, IMAGE_SIZE, PAGE};
use ringfence_testkit::{Native, Outcome};

/// Code memory of a program.
const SLOT: u64 = 1024;

struct Oracle {
    host: Native,
    translated: Translated,
    interpreted: Interpreted,
    image: Vec<u8>,
}

impl Oracle {
    fn native(&mut self, program: &Program) -> (Outcome, Vec<u8>) {
        let mut data = self.image.clone();
        self.host.write_data(&self.image, false);
        let outcome = self.host.run(&program.state, false);
        self.host.read_data(&mut data);
        (outcome, data)
    }

    /// What an engine does otherwise than the host.
    fn differ(&mut self, program: &Program, engine: usize) -> Option<String> {
        let (expected, expected_data) = self.native(program);
        let image = self.image.clone();
        let ring = if engine == 2 {
            Ring::Kernel
        } else {
            Ring::User
        };
        let machine: &mut dyn Machine = if engine == 0 {
            &mut self.interpreted
        } else {
            &mut self.translated
        };
        machine.write_data(&image);
        let found = match machine.run(&program.state, ring) {
            Ok(found) => found,
            Err(error) => return Some(error),
        };
        let data = machine.read_data();
        // Where a program faults, flags may be dead.
        let undefined_flags = if expected.vector == 3 { 0 } else { FLAGS };
        let rules = Rules {
            undefined_flags,
            privilege: engine == 2,
        };
        let text = differences(&expected, &expected_data, &found, &data, rules);
        (!text.is_empty()).then_some(text)
    }

    fn write(&mut self, address: u64, code: &[u8]) {
        self.host.write_code(address, code);
        self.translated.write_code(address, code);
        self.interpreted.write_code(address, code);
    }

    /// The shortest beginning of the program that shows the difference, and the difference.
    fn shrink(&mut self, program: &Program, engine: usize) -> String {
        let start = program.state.rip;
        for (index, &offset) in program.starts.iter().enumerate().skip(1) {
            let mut code = program.code.clone();
            code[offset..].fill(0xcc);
            self.write(start, &code);
            // Where flags are defined again only by the next instruction, they may differ.
            if let Some(text) = self.differ(program, engine)
                && text
                    .trim_start()
                    .lines()
                    .any(|line| !line.trim().starts_with("rflags"))
            {
                let from = program.starts[index - 1];
                let last = disassemble(&program.code[from..offset], start + from as u64, 64);
                return format!("after {} instructions, the last one {last}:\n{text}", index);
            }
        }
        "only with the whole program".to_owned()
    }
}

#[test]
fn programs_act_as_on_the_host() {
    let seed = number("RINGFENCE_DIFF_SEED", 0x5eed_0002);
    let cases = number("RINGFENCE_DIFF_CASES", 5_000);
    println!("RINGFENCE_DIFF_SEED={seed} RINGFENCE_DIFF_CASES={cases}");
    let model = CpuidModel::new(1, 1_000_000_000);
    let allowed = |feature| model.allows(feature);
    let (translated, interpreted) = (Translated::new(64), Interpreted::new(64));
    let host = match Native::new() {
        Ok(native) => native,
        Err(error) => {
            println!("the host can't be the oracle: {error}");
            return;
        }
    };
    let mut generator = Generator::new(seed, 64, false, &allowed);
    let mut oracle = Oracle {
        host,
        translated,
        interpreted,
        image: vec![0; IMAGE_SIZE],
    };
    let (mut failures, mut ended) = (0, 0);
    for case in 0..cases {
        let slot = case % (CODE_SIZE / SLOT);
        let address = CODE + slot * SLOT;
        if slot == 0 {
            fill_data(generator.random(), &mut oracle.image);
            let page = PAGE as usize;
            oracle.image[4 * page..5 * page].fill(0);
            let image = oracle.image.clone();
            oracle.host.write_data(&image, true);
        }
        let program = loop {
            let program = generator.program(address);
            if program.code.len() < SLOT as usize {
                break program;
            }
        };
        oracle.write(address, &program.code);
        ended += u64::from(oracle.native(&program).0.vector == 3);
        for (engine, name) in ["interpreter", "translator, CPL 3", "translator, CPL 0"]
            .into_iter()
            .enumerate()
        {
            let Some(text) = oracle.differ(&program, engine) else {
                continue;
            };
            failures += 1;
            if failures <= 3 {
                let code = disassemble(&program.code, address, 64).replace("; ", "\n    ");
                let where_ = oracle.shrink(&program, engine);
                oracle.write(address, &program.code);
                let inputs = registers(&program.state);
                eprintln!("{name}, program {case}:\n{text}    {code}\n{inputs}  {where_}\n");
            }
        }
    }
    println!("{cases} programs, {ended} ran to their end");
    assert!(ended * 3 > cases, "most programs must run to their end");
    assert_eq!(failures, 0, "replay with RINGFENCE_DIFF_SEED={seed}");
}

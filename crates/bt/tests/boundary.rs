//! Every memory form with its operand across the boundary to another page: absent, read-only,
//! a device's, or one that holds translated code.
//!
//! Where the page is absent or read-only the host's processor is the oracle, the address and the
//! error code of the fault included; nothing may be written then. For a device's page and for
//! code, the host runs the same with ordinary memory of the same content.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Interpreted, Machine, Translated, number};
use ringfence_bt::interp::system::cpuid::CpuidModel;
use ringfence_engine::Vcpu;
use ringfence_testkit::compare::{FLAGS, Rules, describe, differences};
use ringfence_testkit::generate::{Case, Generator, fill_data, ring_sensitive};
use ringfence_testkit::guest::{Ring, entry_address, system_registers};
use ringfence_testkit::layout::{
    ABSENT, CODE, CODE_SIZE, DATA, IMAGE_SIZE, ISLAND, PAGE, READ_ONLY,
};
use ringfence_testkit::mock::DEVICE;
use ringfence_testkit::{Native, Outcome};
use ringfence_x86::paging;

/// Page of the data area that takes another nature in some tests.
const SPECIAL: u64 = DATA + PAGE;
/// Its place in the image.
const SPECIAL_OFFSET: usize = PAGE as usize;

struct Bench {
    host: Native,
    translated: Translated,
    interpreted: Interpreted,
    generator: Generator,
    image: Vec<u8>,
    failures: Vec<String>,
}

impl Bench {
    fn new(seed: u64) -> Option<Self> {
        let model = CpuidModel::new(1, 1_000_000_000);
        let allowed = |feature| model.allows(feature);
        let (translated, interpreted) = (Translated::new(64), Interpreted::new(64));
        let host = match Native::new() {
            Ok(host) => host,
            Err(error) => {
                println!("the host can't be the oracle: {error}");
                return None;
            }
        };
        let mut generator = Generator::new(number("RINGFENCE_DIFF_SEED", seed), 64, true, &allowed);
        let mut image = vec![0; IMAGE_SIZE];
        fill_data(generator.random(), &mut image);
        image[(ABSENT - DATA) as usize..(ISLAND - DATA) as usize].fill(0);
        let mut bench = Self {
            host,
            translated,
            interpreted,
            generator,
            image,
            failures: Vec::new(),
        };
        let image = bench.image.clone();
        bench.host.write_data(&image, true);
        Some(bench)
    }

    /// Makes the special page of both machines show guest physical address `page`.
    fn remap(&mut self, page: u64, executable: bool) {
        let bits = paging::P | paging::RW | paging::US | if executable { 0 } else { paging::XD };
        for memory in [self.translated.memory(), self.interpreted.memory()] {
            memory
                .write(entry_address(SPECIAL), &(page | bits).to_le_bytes())
                .expect("tables have memory");
        }
        self.translated
            .vcpu
            .set_system_registers(&system_registers(64));
    }

    fn cases(&mut self, boundaries: &[u64], mut check: impl FnMut(&mut Self, &Case)) -> usize {
        let codes = self.generator.codes().to_vec();
        let mut count = 0;
        for code in codes {
            for &boundary in boundaries {
                let slot = self.generator.random().below(CODE_SIZE / 256);
                let Some(case) = self.generator.boundary_case(code, slot, boundary) else {
                    continue;
                };
                let mut bytes = vec![0xcc; 256];
                let offset = (case.state.rip - (CODE + slot * 256)) as usize;
                bytes[offset..offset + case.code().len()].copy_from_slice(&case.code());
                self.host.write_code(CODE + slot * 256, &bytes);
                self.translated.write_code(CODE + slot * 256, &bytes);
                self.interpreted.write_code(CODE + slot * 256, &bytes);
                check(self, &case);
                count += 1;
            }
        }
        count
    }

    fn patched(&self, case: &Case) -> Vec<u8> {
        let mut image = self.image.clone();
        for (at, bytes) in &case.pokes {
            let offset = (at - DATA) as usize;
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    fn native(&mut self, case: &Case) -> (Outcome, Vec<u8>) {
        let mut image = self.patched(case);
        self.host.write_data(&image, false);
        let outcome = self.host.run(&case.state, false);
        self.host.read_data(&mut image);
        (outcome, image)
    }

    /// Compares `found` with the host; dead and undefined flags apart.
    fn compare(
        &mut self,
        name: &str,
        case: &Case,
        expected: &(Outcome, Vec<u8>),
        found: Result<(Outcome, Vec<u8>), String>,
        kernel: bool,
    ) {
        let undefined = case.instruction.rflags_undefined() != 0;
        let faulted = expected.0.state.rip == case.address();
        let undefined_flags = if undefined || faulted { FLAGS } else { 0 };
        let rules = Rules {
            undefined_flags,
            privilege: kernel,
        };
        let text = match found {
            Ok((outcome, data)) => differences(&expected.0, &expected.1, &outcome, &data, rules),
            Err(error) => format!("  {error}\n"),
        };
        if !text.is_empty() {
            self.failures
                .push(format!("{name} differs:\n{text}{}", describe(case)));
        }
    }

    fn finish(self, count: usize) {
        println!("{count} cases");
        for text in self
            .failures
            .iter()
            .take(number("RINGFENCE_DIFF_SHOWN", 8) as usize)
        {
            eprintln!("{text}");
        }
        assert!(count > 1000, "too few instructions access memory: {count}");
        assert_eq!(self.failures.len(), 0, "cases failed");
    }
}

fn run(
    machine: &mut dyn Machine,
    case: &Case,
    image: &[u8],
    ring: Ring,
) -> Result<(Outcome, Vec<u8>), String> {
    machine.write_data(image);
    let outcome = machine.run(&case.state, ring)?;
    Ok((outcome, machine.read_data()))
}

#[test]
fn operands_across_absent_and_read_only_pages() {
    let Some(mut bench) = Bench::new(0x5eed_0003) else {
        return;
    };
    let boundaries = [
        DATA,
        READ_ONLY,
        ABSENT,
        ISLAND,
        ISLAND + PAGE,
        READ_ONLY + 8,
    ];
    let count = bench.cases(&boundaries, |bench, case| {
        let image = bench.patched(case);
        let expected = bench.native(case);
        let found = run(&mut bench.interpreted, case, &image, Ring::User);
        bench.compare("the interpreter", case, &expected, found, false);
        let found = run(&mut bench.translated, case, &image, Ring::User);
        bench.compare("the translator, CPL 3,", case, &expected, found, false);
        if !ring_sensitive(case.instruction.code()) && case.state.rflags & 1 << 18 == 0 {
            let found = run(&mut bench.translated, case, &image, Ring::Kernel);
            bench.compare("the translator, CPL 0,", case, &expected, found, true);
        }
    });
    bench.finish(count);
}

#[test]
fn operands_across_a_page_with_translated_code() {
    let Some(mut bench) = Bench::new(0x5eed_0004) else {
        return;
    };
    bench.remap(SPECIAL, true);
    let count = bench.cases(&[SPECIAL, SPECIAL + PAGE], |bench, case| {
        let mut image = bench.patched(case);
        // INT3 in the middle of the page, which has run.
        image[SPECIAL_OFFSET + 0x800] = 0xcc;
        bench.image.copy_from_slice(&image);
        let expected = bench.native(case);
        bench.translated.write_data(&image);
        let mut state = case.state;
        state.rip = SPECIAL + 0x800;
        let outcome = bench.translated.run(&state, Ring::User);
        assert_eq!(outcome.map(|outcome| outcome.vector), Ok(3));
        // The data must not be written again: that would drop the translation.
        let found = bench
            .translated
            .run(&case.state, Ring::User)
            .map(|outcome| (outcome, bench.translated.read_data()));
        bench.compare("the translator", case, &expected, found, false);
    });
    bench.finish(count);
}

#[test]
fn operands_across_a_device() {
    for outside in [false, true] {
        let Some(mut bench) = Bench::new(0x5eed_0005) else {
            return;
        };
        bench.remap(DEVICE, false);
        let mocks = [
            Arc::clone(bench.translated.mock()),
            Arc::clone(bench.interpreted.mock()),
        ];
        mocks[0].outside.store(outside, Ordering::SeqCst);
        let count = bench.cases(&[SPECIAL, SPECIAL + PAGE], |bench, case| {
            let image = bench.patched(case);
            let page = SPECIAL_OFFSET..SPECIAL_OFFSET + PAGE as usize;
            let expected = bench.native(case);
            for (index, name) in ["the translator", "the interpreter"]
                .into_iter()
                .enumerate()
            {
                let mock = &mocks[index];
                mock.set_registers(&image[page.clone()]);
                let machine: &mut dyn Machine = if index == 0 {
                    &mut bench.translated
                } else {
                    &mut bench.interpreted
                };
                let found = run(machine, case, &image, Ring::User).map(|(outcome, mut data)| {
                    data[page.clone()].copy_from_slice(&mock.registers().0);
                    (outcome, data)
                });
                bench.compare(name, case, &expected, found, false);
            }
        });
        assert!(
            mocks[0].registers().1 > 1000,
            "the device was hardly accessed"
        );
        bench.finish(count);
    }
}

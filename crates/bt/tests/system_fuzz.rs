//! Random code in a machine with real chips: the monitor survives whatever a guest executes.
//!
//! `RINGFENCE_FUZZ_SECONDS` sets how long each test runs, or `RINGFENCE_FUZZ_BLOCKS` until how many
//! blocks are translated; `RINGFENCE_FUZZ_SEED` where it begins.

mod system;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringfence_bt::BtVcpu;
use ringfence_engine::{
    DescriptorTable, Exit, GuestMemory, Kick, LocalDevices, Registers, SystemRegisters, Vcpu,
};
use ringfence_testkit::Random;
use ringfence_testkit::generate::Generator;
use ringfence_x86::{cr, flags, paging};
use system::*;

/// Code that the mutations begin with, from the suites' own programs and from what compilers make.
const SEEDS: &[&[u8]] = &[
    // push rbp; mov rbp, rsp; sub rsp, 32; mov [rbp-8], rdi; mov eax, [rbp-8]; leave; ret
    &[
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x7d, 0xf8, 0x8b, 0x45, 0xf8,
        0xc9, 0xc3,
    ],
    // lock xadd [rsi], eax; cmpxchg [rsi], ecx; jne back; adc eax, ebx
    &[
        0xf0, 0x0f, 0xc1, 0x06, 0x0f, 0xb1, 0x0e, 0x75, 0xf7, 0x11, 0xd8,
    ],
    // pushfq; pop rax; push rax; popfq; cli; sti; hlt
    &[0x9c, 0x58, 0x50, 0x9d, 0xfa, 0xfb, 0x90],
    // syscall; sysretq; swapgs; iretq
    &[0x0f, 0x05, 0x48, 0x0f, 0x07, 0x0f, 0x01, 0xf8, 0x48, 0xcf],
    // mov rax, cr0; mov cr0, rax; mov rax, cr3; mov cr3, rax; mov rax, cr4; mov cr4, rax
    &[
        0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0,
        0x0f, 0x22, 0xe0,
    ],
    // rep movsq; rep stosb; repne scasb; lodsd
    &[0xf3, 0x48, 0xa5, 0xf3, 0xaa, 0xf2, 0xae, 0xad],
    // invlpg [rsi]; rdmsr; wrmsr; cpuid; rdtsc; mov ds, eax; mov ax, ss
    &[
        0x0f, 0x01, 0x3e, 0x0f, 0x32, 0x0f, 0x30, 0x0f, 0xa2, 0x0f, 0x31, 0x8e, 0xd8, 0x8c, 0xd0,
    ],
    // fld qword [rsi]; fadd st, st; fstp qword [rsi]; movups xmm0, [rsi]; addps xmm0, xmm0
    &[
        0xdd, 0x06, 0xd8, 0xc0, 0xdd, 0x1e, 0x0f, 0x10, 0x06, 0x0f, 0x58, 0xc0,
    ],
    // vaddps ymm0, ymm0, [rsi]; vzeroupper; xsave [rsi]; fxsave [rsi]; fxrstor [rsi]
    &[
        0xc5, 0xfc, 0x58, 0x06, 0xc5, 0xf8, 0x77, 0x0f, 0xae, 0x26, 0x0f, 0xae, 0x06, 0x0f, 0xae,
        0x0e,
    ],
    // mov [rip+5], al; mov byte [rip+1], 90h; nop; nop: changes itself
    &[
        0x88, 0x05, 5, 0, 0, 0, 0xc6, 0x05, 1, 0, 0, 0, 0x90, 0x90, 0x90, 0x90,
    ],
    // jmp [rsi]; call [rsi]; ret; loop back; jrcxz
    &[0xff, 0x26, 0xff, 0x16, 0xc3, 0xe2, 0xfe, 0xe3, 0xf0],
    // div ecx; idiv rbx; bt [rsi], eax; bts [rdi], rcx; xchg [rsi], eax; enter 16, 3
    &[
        0xf7, 0xf1, 0x48, 0xf7, 0xfb, 0x0f, 0xa3, 0x06, 0x48, 0x0f, 0xab, 0x0f, 0x87, 0x06, 0xc8,
        0x10, 0, 3,
    ],
    // lgdt [rsi]; lidt [rsi]; sgdt [rdi]; str eax; ltr ax; lldt ax; verr ax; lar eax, ecx
    &[
        0x0f, 0x01, 0x16, 0x0f, 0x01, 0x1e, 0x0f, 0x01, 0x07, 0x0f, 0x00, 0xc8, 0x0f, 0x00, 0xd8,
        0x0f, 0x00, 0xd0, 0x0f, 0x00, 0xe0, 0x0f, 0x02, 0xc1,
    ],
    // in al, dx; out dx, eax; rep insb; rep outsd
    &[0xec, 0xef, 0xf3, 0x6c, 0xf3, 0x6f],
    // mov dr7, rax; mov rax, dr6; int3; int 80h; ud2; clts; wbinvd; xgetbv; xsetbv; monitor
    &[
        0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xf0, 0xcc, 0xcd, 0x80, 0x0f, 0x0b, 0x0f, 0x06, 0x0f, 0x09,
        0x0f, 0x01, 0xd0, 0x0f, 0x01, 0xd1, 0x0f, 0x01, 0xc8,
    ],
    // stac; clac; invpcid rax, [rsi]; xsaves [rsi]; xrstors [rsi]; mov dr0, rsi; mov dr7, rcx
    &[
        0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xca, 0x66, 0x0f, 0x38, 0x82, 0x06, 0x0f, 0xc7, 0x2e, 0x0f,
        0xc7, 0x1e, 0x0f, 0x23, 0xc6, 0x0f, 0x23, 0xf9,
    ],
    // xor ecx, ecx; xor edx, edx; mov eax, 0e7h; xsetbv
    &[
        0x31, 0xc9, 0x31, 0xd2, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x01, 0xd1,
    ],
    // vmovups zmm16{k1}, [rsi]; kmovw k1, eax; vpgatherdd zmm1{k1}, [rsi+zmm2]; vpcompressd [rdi]{k1}, zmm1
    &[
        0x62, 0xe1, 0x7c, 0x49, 0x10, 0x06, 0xc5, 0xf8, 0x92, 0xc8, 0x62, 0xf2, 0x7d, 0x49, 0x90,
        0x0c, 0x16, 0x62, 0xf2, 0x7d, 0x49, 0x8b, 0x0f,
    ],
];

thread_local! {
    /// Encodings of all instructions, by bits of code.
    static ENCODINGS: RefCell<BTreeMap<u32, Generator>> = const { RefCell::new(BTreeMap::new()) };
}

/// An instruction with random operands, of any kind that the decoder knows.
fn encoding(random: &mut Random, bits: u32) -> Vec<u8> {
    ENCODINGS.with_borrow_mut(|generators| {
        let seed = random.bits();
        generators
            .entry(bits)
            .or_insert_with(|| Generator::new(seed, bits, false, &|_| true))
            .random_encoding()
    })
}

/// Addresses that registers are set to.
const PLACES: &[u64] = &[
    0,
    1,
    DATA,
    DATA + 0xff9,
    USER,
    USER_DATA_PAGE,
    USER_DATA_PAGE + 0xffd,
    USER_STACK - 0x100,
    STACK - 0x100,
    CODE,
    IDT,
    GDT,
    TSS,
    PAGE_TABLES,
    0xfee0_0000,
    0xfec0_0000,
    0x7fff_ffff_fff8,
    0x8000_0000_0000,
    0xffff_ffff_ffff_fffc,
    SPARE,
];

/// What code runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// 64-bit, level 0.
    Kernel,
    /// 64-bit, level 3.
    User,
    /// 32-bit under a 64-bit kernel, level 3.
    Compatible,
    /// 32-bit without paging, level 0.
    Protected,
    /// 16-bit real mode.
    Real,
}

impl Kind {
    fn code(self) -> u64 {
        match self {
            Self::Kernel | Self::Protected => CODE,
            Self::User | Self::Compatible => USER,
            Self::Real => 0x8000,
        }
    }

    fn user(self) -> bool {
        matches!(self, Self::User | Self::Compatible)
    }

    fn system(self) -> SystemRegisters {
        let mut system = long_mode();
        match self {
            Self::Kernel => {}
            Self::User | Self::Compatible => {
                let code = if self == Self::User {
                    (USER_CODE, 0xa0fb)
                } else {
                    (USER_CODE32, 0xc0fb)
                };
                let data = flat(USER_DATA, 0xc0f3);
                system.segments = [data, flat(code.0, code.1), data, data, data, data];
            }
            Self::Protected => {
                system.segments[1] = flat(KERNEL_CODE32, 0xc09b);
                system.cr0 &= !cr::CR0_PG;
                system.cr4 &= !cr::CR4_PAE;
                system.efer = 0;
            }
            Self::Real => {
                let mut segment = flat(0, 0x93);
                segment.limit = 0xffff;
                system.segments = [segment; 6];
                system.segments[1].attributes.0 = 0x9b;
                system.idtr = DescriptorTable {
                    base: 0,
                    limit: 0x3ff,
                };
                system.cr0 = cr::CR0_NE;
                system.cr4 = 0;
                system.efer = 0;
            }
        }
        system
    }
}

fn seconds() -> f64 {
    std::env::var("RINGFENCE_FUZZ_SECONDS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(4.0)
}

fn wanted_blocks() -> Option<u64> {
    std::env::var("RINGFENCE_FUZZ_BLOCKS").ok()?.parse().ok()
}

fn seed() -> u64 {
    std::env::var("RINGFENCE_FUZZ_SEED")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1)
}

/// A page's worth of code, more or less valid.
fn program(random: &mut Random, kind: Kind) -> Vec<u8> {
    let mut code = Vec::new();
    let size = 16 + random.below(240) as usize;
    while code.len() < size {
        match random.below(8) {
            0 => code.extend((0..=random.below(11)).map(|_| random.bits() as u8)),
            1 => {
                // A prefix or two.
                let prefixes = [
                    0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x48, 0x41, 0x44, 0x64, 0x65, 0x2e,
                ];
                code.push(random.pick(&prefixes));
            }
            2..=4 => {
                let bits = match kind {
                    Kind::Kernel | Kind::User => 64,
                    Kind::Compatible | Kind::Protected => 32,
                    Kind::Real => 16,
                };
                code.extend(encoding(random, bits));
            }
            _ => {
                let mut part = random.pick(SEEDS).to_vec();
                for _ in 0..random.below(3) {
                    let at = random.below(part.len() as u64) as usize;
                    part[at] = match random.below(3) {
                        0 => random.bits() as u8,
                        1 => part[at] ^ 1 << random.below(8),
                        _ => part[at].wrapping_add(1),
                    };
                }
                code.extend(part);
            }
        }
    }
    code
}

/// Random registers for a run at `rip`.
fn registers(random: &mut Random, rip: u64, kind: Kind) -> Registers {
    let mut r = Registers {
        rip,
        rflags: flags::FIXED,
        ..Registers::default()
    };
    for value in &mut r.gpr {
        *value = match random.below(4) {
            0 => random.bits(),
            1 => random.bits() & 0xff,
            _ => random.pick(PLACES),
        };
    }
    if !random.one_in(8) {
        let top = if kind.user() { USER_STACK } else { STACK };
        r.gpr[4] = if kind == Kind::Real {
            0x7000
        } else {
            top - 0x200
        };
    }
    r.rflags |= random.bits() & (flags::ARITHMETIC | flags::DF | flags::IF);
    if random.one_in(16) {
        r.rflags |= random.bits() & (flags::TF | flags::AC | flags::NT | flags::RF);
    }
    r
}

/// Runs programs for a while; returns how many, and the blocks that were translated.
///
/// A machine is used for many programs, so that what one has broken (tables, chips, modes) meets
/// the next.
fn fuzz(vcpus: u32, kind: Kind, seed: u64) -> (u64, u64) {
    let wanted = wanted_blocks();
    let seconds = if wanted.is_some() {
        86_400.0
    } else {
        seconds()
    };
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut random = Random::new(seed);
    let (mut programs, mut blocks) = (0, 0);
    while Instant::now() < end && wanted.is_none_or(|wanted| blocks < wanted) {
        let (p, b) = one_machine(vcpus, kind, random.bits(), end);
        programs += p;
        blocks += b;
    }
    (programs, blocks)
}

fn one_machine(vcpus: u32, kind: Kind, seed: u64, end: Instant) -> (u64, u64) {
    let mut m = Machine::new(vcpus);
    for id in 1..vcpus {
        // Out of the state after power-up: INIT, start-up IPI.
        for icr in [0x4500, 0x4608] {
            m.ports.mmio_write(0, 0xfee0_0310, 4, u64::from(id) << 24);
            m.ports.mmio_write(0, 0xfee0_0300, 4, icr);
        }
    }
    m.watchdog.arm();
    let kicks: Vec<Arc<dyn Kick>> = m.vcpus.iter().map(|v| v.kicker()).collect();
    let left = AtomicU32::new(vcpus);
    let memory = &m.memory;
    let programs = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..)
            .zip(m.vcpus.iter_mut())
            .map(|(id, vcpu)| {
                let left = &left;
                scope.spawn(move || {
                    let mut guest = Guest {
                        vcpu,
                        memory,
                        kind,
                        seed,
                        vcpus,
                    };
                    let programs = guest.run(&mut Random::new(seed.wrapping_mul(id)), end);
                    left.fetch_sub(1, SeqCst);
                    programs
                })
            })
            .collect();
        // Loops without end are common: they are left by force.
        while left.load(SeqCst) > 0 && !threads.iter().all(|t| t.is_finished()) {
            std::thread::sleep(Duration::from_micros(150));
            kicks.iter().for_each(|kick| kick.interrupt());
        }
        threads
            .into_iter()
            .map(|t| t.join().expect("the monitor survives"))
            .sum()
    });
    m.watchdog.disarm();
    let statistics = m.vcpus.iter().flat_map(|v| v.statistics());
    let blocks = statistics
        .filter(|(name, _)| *name == "blocks")
        .map(|(_, value)| value)
        .sum();
    (programs, blocks)
}

/// One processor and what it runs.
struct Guest<'a> {
    vcpu: &'a mut BtVcpu,
    memory: &'a GuestMemory,
    kind: Kind,
    seed: u64,
    vcpus: u32,
}

impl Guest<'_> {
    fn run(&mut self, random: &mut Random, end: Instant) -> u64 {
        let count = if self.kind.user() { 200 } else { 60 };
        for done in 0..count {
            if Instant::now() >= end {
                return done;
            }
            self.program(random);
        }
        count
    }

    fn program(&mut self, random: &mut Random) {
        let at = self.kind.code() + random.below(3) * 0x7f0;
        let code = program(random, self.kind);
        self.memory.write(at, &code).expect("code has memory");
        if random.one_in(4) {
            // Some page gets other rights.
            let page = random.pick(&[DATA, USER_DATA_PAGE, USER + 0x1000, SPARE]);
            let rights = random.bits() & (URW | paging::PS | paging::G | paging::XD);
            let entry = (page | rights).to_le_bytes();
            self.memory
                .write(entry_of(page), &entry)
                .expect("tables have memory");
        }
        if random.one_in(12) {
            write_tables(self.memory, self.vcpus);
        }
        let mut fresh = true;
        // From the start, from somewhere inside, and on from where the last run ended.
        for _ in 0..4 {
            if fresh {
                self.vcpu.set_system_registers(&self.kind.system());
            }
            let rip = at + random.below(2) * random.below(code.len() as u64);
            let start = registers(random, rip, self.kind);
            self.vcpu.set_registers(&start);
            self.until_stopped(&start);
            fresh = !random.one_in(3);
        }
    }

    fn until_stopped(&mut self, start: &Registers) {
        for _ in 0..50 {
            match self.vcpu.run(start.gpr[0]) {
                Ok(Exit::Interrupted | Exit::Shutdown | Exit::Halt) => return,
                Ok(_) => {}
                Err(error) => panic!(
                    "machine {:#x}: {error}\nfrom {start:x?}\n{}",
                    self.seed,
                    self.vcpu.recent_code().join("\n")
                ),
            }
        }
    }
}

#[track_caller]
fn check(vcpus: u32, kind: Kind) {
    let (programs, blocks) = fuzz(
        vcpus,
        kind,
        seed() ^ u64::from(vcpus) << 32 ^ (kind as u64) << 40,
    );
    eprintln!("{kind:?} on {vcpus}: {programs} programs, {blocks} blocks");
    assert!(programs > 20, "{programs} programs");
    assert!(blocks > 20 || kind == Kind::Real, "{blocks} blocks");
}

#[test]
fn supervisor_code() {
    check(1, Kind::Kernel);
}

#[test]
fn user_code() {
    check(1, Kind::User);
}

#[test]
fn supervisor_code_on_two_processors() {
    check(2, Kind::Kernel);
}

#[test]
fn user_code_on_two_processors() {
    check(2, Kind::User);
}

#[test]
fn user_code_of_32_bits_on_two_processors() {
    check(2, Kind::Compatible);
}

#[test]
fn supervisor_code_of_32_bits() {
    check(1, Kind::Protected);
}

#[test]
fn code_in_real_mode() {
    // An indirect branch with live flags, whose operand was in R10.
    let end = Instant::now() + Duration::from_secs(60);
    one_machine(1, Kind::Real, 0x0d5c_d14b_c862_878a, end);
    check(1, Kind::Real);
}

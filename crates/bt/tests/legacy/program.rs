//! Random programs: any encoding of the instructions that programs use, with loops, calls and
//! jumps, and segment loads where they can't go far wrong.

use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic};
use ringfence_testkit::Random;

use super::machine::{END, FREE_SELECTOR, FREE_SELECTORS, Setting, State};

struct Writer<'a> {
    random: &'a mut Random,
    setting: Setting,
    bits: u32,
    code: Vec<u8>,
}

/// A program for `state`.
pub fn program(random: &mut Random, state: &State) -> Vec<u8> {
    let setting = state.setting;
    let mut w = Writer {
        random,
        setting,
        bits: setting.bits(),
        code: Vec::new(),
    };
    let functions: Vec<usize> = (0..2).map(|_| w.function()).collect();
    // The entry jumps over the functions.
    let body = std::mem::take(&mut w.code);
    w.code = if w.bits == 16 {
        let mut code = vec![0xe9];
        code.extend((body.len() as u16).to_le_bytes());
        code
    } else {
        let mut code = vec![0xe9];
        code.extend((body.len() as u32).to_le_bytes());
        code
    };
    let head = w.code.len();
    w.code.extend(body);
    for _ in 0..=w.random.below(5) {
        w.part(&functions, head);
    }
    w.code.extend([0xe6, END]);
    w.code
}

impl Writer<'_> {
    fn function(&mut self) -> usize {
        let at = self.code.len();
        for _ in 0..=self.random.below(5) {
            self.operation();
        }
        self.code.push(0xc3);
        at
    }

    fn part(&mut self, functions: &[usize], head: usize) {
        match self.random.below(4) {
            0 => {
                for _ in 0..self.random.below(20) {
                    self.operation();
                }
            }
            1 => {
                let target = head + self.random.pick(functions);
                self.code.push(0xe8);
                let size = if self.bits == 16 { 2 } else { 4 };
                let distance = target as i64 - (self.code.len() + size) as i64;
                self.code.extend(&distance.to_le_bytes()[..size]);
            }
            2 => {
                // Jcc over some instructions.
                let start = self.code.len();
                self.code.extend([0x70 | self.random.below(16) as u8, 0]);
                for _ in 0..=self.random.below(3) {
                    self.operation();
                }
                let length = self.code.len() - start - 2;
                if length < 128 {
                    self.code[start + 1] = length as u8;
                }
            }
            _ => self.repeat(),
        }
    }

    /// A loop that counts in memory, whatever its body does to registers.
    fn repeat(&mut self) {
        let rounds = 1 + self.random.below(12) as u8;
        // mov cx, rounds; top: push cx; ...; pop cx; loop top
        let word = |code: &mut Vec<u8>| code.extend([rounds, 0]);
        self.code.push(0xb9);
        word(&mut self.code);
        if self.bits == 32 {
            self.code.extend([0, 0]);
        }
        let top = self.code.len();
        let saves = self.random.one_in(2);
        if saves {
            self.code.push(0x51);
        }
        for _ in 0..=self.random.below(5) {
            self.operation();
        }
        if saves {
            self.code.push(0x59);
        }
        let distance = top as i64 - (self.code.len() + 2) as i64;
        if distance >= -128 {
            self.code.extend([0xe2, distance as u8]);
        }
    }

    fn operation(&mut self) {
        match self.random.below(12) {
            0 => self.load_segment(),
            1 => self.small_register(),
            2 if self.random.one_in(3) => {
                // pushf; popf, or popf of arithmetic flags and DF.
                if self.random.one_in(2) {
                    self.code.push(0x9c);
                } else {
                    self.code.push(0x68);
                    self.code.extend([
                        self.random.bits() as u8 & 0xd5,
                        0xc & self.random.bits() as u8,
                    ]);
                    if self.bits == 32 {
                        self.code.extend([0, 0]);
                    }
                }
                self.code.push(0x9d);
            }
            _ => {
                let (bytes, instruction) = self.any();
                self.code.extend(bytes);
                if instruction.rflags_undefined() != 0 {
                    // cmp ax, bx: undefined flags are never left to be read.
                    self.code.extend([0x39, 0xd8]);
                }
            }
        }
    }

    /// mov reg, a number that is an offset in most segments.
    fn small_register(&mut self) {
        let register = self.random.below(8) as u8;
        let value = (self.random.bits() & 0xffff) as u32;
        if self.bits == 16 {
            if self.random.one_in(2) {
                self.code.push(0x66);
                self.code.push(0xb8 | register);
                return self.code.extend(value.to_le_bytes());
            }
            self.code.push(0xb8 | register);
            return self.code.extend((value as u16).to_le_bytes());
        }
        self.code.push(0xb8 | register);
        self.code.extend(value.to_le_bytes());
    }

    /// mov ax, selector; mov sreg, ax
    fn load_segment(&mut self) {
        let selector = if self.setting.as_8086() {
            0x3800 + self.random.below(0x4800) as u16
        } else {
            FREE_SELECTOR + (self.random.below(u64::from(FREE_SELECTORS)) as u16) * 8
        };
        if self.bits == 32 {
            self.code.push(0x66);
        }
        self.code.push(0xb8);
        self.code.extend(selector.to_le_bytes());
        let segment = self.random.pick(&[0u8, 3, 3, 4, 5, 0, 2]);
        if segment == 2 && (!self.setting.as_8086() || !self.random.one_in(4)) {
            return;
        }
        if self.random.one_in(2) {
            self.code.extend([0x8e, 0xc0 | segment << 3]);
        } else {
            self.code.push(0x50);
            match segment {
                0 => self.code.push(0x07),
                2 => self.code.push(0x17),
                3 => self.code.push(0x1f),
                4 => self.code.extend([0x0f, 0xa1]),
                _ => self.code.extend([0x0f, 0xa9]),
            }
        }
    }

    /// Any allowed instruction.
    fn any(&mut self) -> (Vec<u8>, Instruction) {
        loop {
            let mut bytes = Vec::new();
            if self.random.one_in(4) {
                bytes.push(0x66);
            }
            if self.random.one_in(5) {
                bytes.push(0x67);
            }
            if self.random.one_in(5) {
                bytes.push(self.random.pick(&[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]));
            }
            if self.random.one_in(20) {
                bytes.push(self.random.pick(&[0xf3, 0xf2]));
            }
            if self.random.one_in(6) {
                bytes.push(0x0f);
            }
            for _ in 0..12 {
                bytes.push(self.random.bits() as u8);
            }
            let mut decoder = Decoder::with_ip(self.bits, &bytes, 0x1000, DecoderOptions::NONE);
            let instruction = decoder.decode();
            if decoder.last_error() == DecoderError::None && allowed(&instruction, self.setting) {
                bytes.truncate(instruction.len());
                return (bytes, instruction);
            }
        }
    }
}

fn allowed(instruction: &Instruction, setting: Setting) -> bool {
    use Mnemonic as M;
    let code = instruction.code();
    if instruction.flow_control() != FlowControl::Next || code.op_code().is_input_output() {
        return false;
    }
    let fp = instruction.cpuid_features().iter().any(|feature| {
        use iced_x86::CpuidFeature as F;
        !matches!(
            feature,
            F::INTEL8086
                | F::INTEL186
                | F::INTEL286
                | F::INTEL386
                | F::INTEL486
                | F::CMOV
                | F::CX8
                | F::MOVBE
                | F::POPCNT
                | F::BMI1
                | F::BMI2
        )
    });
    let system = code.op_code().is_privileged()
        || matches!(
            instruction.mnemonic(),
            M::Popf
                | M::Popfd
                | M::Lar
                | M::Lsl
                | M::Verr
                | M::Verw
                | M::Sgdt
                | M::Sidt
                | M::Sldt
                | M::Str
                | M::Smsw
                | M::Arpl
                | M::Lmsw
                | M::Cpuid
                | M::Rdtsc
        );
    let loads = matches!(
        code,
        Code::Mov_Sreg_rm16
            | Code::Mov_Sreg_r32m16
            | Code::Popw_ES
            | Code::Popw_DS
            | Code::Popw_SS
            | Code::Popw_FS
            | Code::Popw_GS
            | Code::Popd_ES
            | Code::Popd_DS
            | Code::Popd_SS
            | Code::Popd_FS
            | Code::Popd_GS
    ) || matches!(
        instruction.mnemonic(),
        M::Les | M::Lds | M::Lss | M::Lfs | M::Lgs
    );
    // Their results are undefined for counts above 16.
    let undefined = matches!(
        code,
        Code::Shld_rm16_r16_imm8
            | Code::Shrd_rm16_r16_imm8
            | Code::Shld_rm16_r16_CL
            | Code::Shrd_rm16_r16_CL
    );
    !fp && !system && !undefined && (!loads || setting.as_8086())
}

//! A small assembler for the host instructions that the translator adds around the guest's.

/// Host registers by their encodings.
pub mod reg {
    /// RAX.
    pub const RAX: u8 = 0;
    /// RCX.
    pub const RCX: u8 = 1;
    /// RDX.
    pub const RDX: u8 = 2;
    /// RBX.
    pub const RBX: u8 = 3;
    /// RSP.
    pub const RSP: u8 = 4;
    /// RBP.
    pub const RBP: u8 = 5;
    /// RSI.
    pub const RSI: u8 = 6;
    /// RDI.
    pub const RDI: u8 = 7;
    /// R8.
    pub const R8: u8 = 8;
    /// R9: holds the guest's RSP in translated code.
    pub const R9: u8 = 9;
    /// R10: scratch in translated code.
    pub const R10: u8 = 10;
    /// R11: scratch in translated code; host address of the memory operand.
    pub const R11: u8 = 11;
}

/// A memory operand of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mem {
    /// Relative to the context.
    pub gs: bool,
    /// Base register.
    pub base: Option<u8>,
    /// Index register (not RSP) and log2 of its scale.
    pub index: Option<(u8, u8)>,
    /// Displacement.
    pub disp: i32,
}

impl Mem {
    /// A field of the context.
    pub const fn gs(disp: i32) -> Self {
        Self {
            gs: true,
            base: None,
            index: None,
            disp,
        }
    }
    /// A field of the context, indexed in bytes by a register.
    pub const fn gs_at(base: u8, disp: i32) -> Self {
        Self {
            gs: true,
            base: Some(base),
            index: None,
            disp,
        }
    }
    /// Memory at a register.
    pub const fn at(base: u8, disp: i32) -> Self {
        Self {
            gs: false,
            base: Some(base),
            index: None,
            disp,
        }
    }
}

/// Opcodes of the two-operand form `reg, r/m` (or `r/m, reg`).
pub mod op {
    /// ADD reg, r/m.
    pub const ADD: u8 = 0x03;
    /// OR reg, r/m.
    pub const OR: u8 = 0x0b;
    /// AND reg, r/m.
    pub const AND: u8 = 0x23;
    /// XOR reg, r/m.
    pub const XOR: u8 = 0x33;
    /// CMP reg, r/m.
    pub const CMP: u8 = 0x3b;
    /// MOV reg, r/m.
    pub const LOAD: u8 = 0x8b;
    /// MOV r/m, reg.
    pub const STORE: u8 = 0x89;
    /// LEA reg, m.
    pub const LEA: u8 = 0x8d;
    /// XCHG r/m, reg.
    pub const XCHG: u8 = 0x87;
}

/// Condition codes.
pub mod cc {
    /// Below, unsigned.
    pub const B: u8 = 2;
    /// Equal.
    pub const E: u8 = 4;
    /// Not equal.
    pub const NE: u8 = 5;
    /// Above, unsigned.
    pub const A: u8 = 7;
    /// Less, signed.
    pub const L: u8 = 12;
    /// Greater, signed.
    pub const G: u8 = 15;
}

/// A cursor into executable memory.
#[derive(Debug)]
pub struct Asm {
    position: *mut u8,
    end: *mut u8,
}

impl Asm {
    /// Emits from `start` up to `end`.
    ///
    /// # Safety
    /// The range must be writable for as long as the assembler is used.
    pub unsafe fn new(start: *mut u8, end: *mut u8) -> Self {
        Self {
            position: start,
            end,
        }
    }

    /// Where the next byte goes.
    pub fn here(&self) -> *mut u8 {
        self.position
    }

    /// Bytes left.
    pub fn room(&self) -> usize {
        self.end as usize - self.position as usize
    }

    /// Goes back to `position`, which this assembler returned from [`Asm::here`].
    pub fn rewind(&mut self, position: *mut u8) {
        self.position = position;
    }

    /// Emits bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.room(),
            "the translator outgrew its reserve of code cache"
        );
        // SAFETY: the range has room, by the assertion and the contract of `new`.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.position, bytes.len());
            self.position = self.position.add(bytes.len());
        }
    }

    /// Emits no operations up to a multiple of `alignment`, a power of two.
    pub fn align(&mut self, alignment: usize) {
        const NOP9: [u8; 9] = [0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        let mut gap = self.position.align_offset(alignment);
        while gap >= 9 {
            self.bytes(&NOP9);
            gap -= 9;
        }
        let short: &[u8] = match gap {
            8 => &NOP9[1..],
            7 => &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            6 => &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
            5 => &[0x0f, 0x1f, 0x44, 0, 0],
            4 => &[0x0f, 0x1f, 0x40, 0],
            3 => &[0x0f, 0x1f, 0],
            2 => &[0x66, 0x90],
            1 => &[0x90],
            _ => &[],
        };
        self.bytes(short);
    }

    /// Emits one byte.
    pub fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    /// Emits 4 bytes.
    pub fn dword(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// Emits `[prefix] [REX] opcode modrm`, register form.
    pub fn op_reg(&mut self, wide: bool, opcode: u8, reg: u8, rm: u8) {
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | rm >> 3;
        if rex != 0x40 {
            self.byte(rex);
        }
        self.bytes(&[opcode, 0xc0 | (reg & 7) << 3 | rm & 7]);
    }

    /// Emits `[65] [REX] opcode modrm [sib] [disp]`, memory form.
    pub fn op_mem(&mut self, wide: bool, opcode: &[u8], reg: u8, mem: Mem) {
        if mem.gs {
            self.byte(0x65);
        }
        let index = mem.index.map_or(0, |(r, _)| r);
        let base = mem.base.unwrap_or(0);
        let rex = 0x40 | u8::from(wide) << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
        if rex != 0x40 {
            self.byte(rex);
        }
        self.bytes(opcode);
        self.modrm(reg, mem);
    }

    /// Emits ModRM, SIB and displacement.
    pub fn modrm(&mut self, reg: u8, mem: Mem) {
        let field = (reg & 7) << 3;
        let Some(base) = mem.base else {
            let (index, scale) = mem.index.unwrap_or((4, 0));
            self.bytes(&[field | 4, scale << 6 | (index & 7) << 3 | 5]);
            return self.dword(mem.disp as u32);
        };
        let short = i8::try_from(mem.disp);
        let mode = match (mem.disp, short) {
            (0, _) if base & 7 != 5 => 0,
            (_, Ok(_)) => 0x40,
            _ => 0x80,
        };
        match mem.index {
            Some((index, scale)) => {
                self.bytes(&[mode | field | 4, scale << 6 | (index & 7) << 3 | base & 7]);
            }
            None if base & 7 == 4 => self.bytes(&[mode | field | 4, 0x24]),
            None => self.byte(mode | field | base & 7),
        }
        match mode {
            0 => {}
            0x40 => self.byte(mem.disp as u8),
            _ => self.dword(mem.disp as u32),
        }
    }

    /// MOV reg64, memory.
    pub fn load(&mut self, reg: u8, mem: Mem) {
        self.op_mem(true, &[op::LOAD], reg, mem);
    }

    /// MOV memory, reg64.
    pub fn store(&mut self, mem: Mem, reg: u8) {
        self.op_mem(true, &[op::STORE], reg, mem);
    }

    /// MOV reg64, reg64.
    pub fn mov(&mut self, to: u8, from: u8) {
        self.op_reg(true, op::LOAD, to, from);
    }

    /// MOV dword memory, imm32.
    pub fn store_imm32(&mut self, mem: Mem, value: u32) {
        self.op_mem(false, &[0xc7], 0, mem);
        self.dword(value);
    }

    /// LEA reg, memory.
    pub fn lea(&mut self, wide: bool, reg: u8, mem: Mem) {
        self.op_mem(wide, &[op::LEA], reg, mem);
    }

    /// MOV reg64, constant, in its shortest form.
    pub fn mov_imm(&mut self, reg: u8, value: u64) {
        if u32::try_from(value).is_ok() {
            if reg >= 8 {
                self.byte(0x41);
            }
            self.byte(0xb8 | reg & 7);
            self.dword(value as u32);
        } else if i32::try_from(value as i64).is_ok() {
            self.bytes(&[0x48 | reg >> 3, 0xc7, 0xc0 | reg & 7]);
            self.dword(value as u32);
        } else {
            self.bytes(&[0x48 | reg >> 3, 0xb8 | reg & 7]);
            self.bytes(&value.to_le_bytes());
        }
    }

    /// CMP reg64, imm32 (sign-extended).
    pub fn cmp_imm(&mut self, reg: u8, value: i32) {
        self.bytes(&[0x48 | reg >> 3, 0x81, 0xf8 | reg & 7]);
        self.dword(value as u32);
    }

    /// CMP dword memory, 0.
    pub fn cmp_mem_zero(&mut self, mem: Mem) {
        self.op_mem(false, &[0x83], 7, mem);
        self.byte(0);
    }

    /// JMP rel32; returns the address of the displacement.
    pub fn jmp(&mut self, target: *const u8) -> *mut u8 {
        self.byte(0xe9);
        self.rel32(target)
    }

    /// CALL rel32.
    pub fn call(&mut self, target: *const u8) {
        self.byte(0xe8);
        self.rel32(target);
    }

    /// Jcc rel32; returns the address of the displacement.
    pub fn jcc(&mut self, condition: u8, target: *const u8) -> *mut u8 {
        self.bytes(&[0x0f, 0x80 | condition]);
        self.rel32(target)
    }

    fn rel32(&mut self, target: *const u8) -> *mut u8 {
        let site = self.position;
        let displacement = (target as i64).wrapping_sub(site as i64 + 4);
        self.dword(displacement as u32);
        site
    }

    /// A short forward jump; bind it with [`Asm::bind_short`].
    pub fn short(&mut self, opcode: u8) -> *mut u8 {
        self.bytes(&[opcode, 0]);
        self.position.wrapping_sub(1)
    }

    /// Makes a short jump land here.
    pub(crate) fn bind_short(&mut self, site: *mut u8) {
        let displacement = self.position as i64 - site as i64 - 1;
        debug_assert!((0..128).contains(&displacement));
        // SAFETY: `site` is a byte that this assembler emitted.
        unsafe { *site = displacement as u8 };
    }

    /// JMP to the address in memory.
    pub fn jmp_mem(&mut self, mem: Mem) {
        self.op_mem(false, &[0xff], 4, mem);
    }

    /// Saves the arithmetic flags to the context, using R10.
    pub fn save_flags(&mut self, flags: i32) {
        self.mov(reg::R10, reg::RAX);
        // lahf; seto al
        self.bytes(&[0x9f, 0x0f, 0x90, 0xc0]);
        // mov gs:[flags], ax
        self.byte(0x66);
        self.op_mem(false, &[op::STORE], reg::RAX, Mem::gs(flags));
        self.mov(reg::RAX, reg::R10);
    }

    /// Loads the arithmetic flags from the context, using R10.
    pub fn restore_flags(&mut self, flags: i32) {
        self.mov(reg::R10, reg::RAX);
        self.op_mem(false, &[op::LOAD], reg::RAX, Mem::gs(flags));
        // add al, 127 (OF from bit 0); sahf
        self.bytes(&[0x04, 0x7f, 0x9e]);
        self.mov(reg::RAX, reg::R10);
    }
}

/// JMP rel32, and a no-operation of the same five bytes.
const JMP: u8 = 0xe9;
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// Makes the branch whose displacement is at `site` go to `target`. A jump to what is behind it
/// becomes a no-operation.
///
/// # Safety
/// `site` must be the displacement of a branch emitted by [`Asm::jmp`] or [`Asm::jcc`] in memory
/// that is still mapped, and no other thread may be executing it.
pub unsafe fn patch(site: *mut u8, target: *const u8) {
    let displacement = (target as i64).wrapping_sub(site as i64 + 4) as u32;
    // SAFETY: by the contract; the opcode is the byte before the displacement.
    unsafe {
        let opcode = site.sub(1);
        if *opcode == JMP && displacement == 0 {
            std::ptr::copy_nonoverlapping(NOP5.as_ptr(), opcode, NOP5.len());
            return;
        }
        // A conditional branch has 80h to 8Fh there.
        if *opcode == NOP5[0] {
            *opcode = JMP;
        }
        site.cast::<u32>().write_unaligned(displacement);
    }
}

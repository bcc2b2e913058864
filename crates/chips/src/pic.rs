//! Pair of 8259A interrupt controllers as wired in a PC (Intel 8259A data sheet, order number
//! 231468-003; edge/level control registers as in the 82371SB and ICH data sheets).
//!
//! An edge stays latched until it is acknowledged, even if the line has dropped since: devices
//! that pulse their line need not hold it. ICW1's LTIM is ignored in favour of ELCR, as in every
//! chipset since. MCS-80 mode and buffered mode (pins that nothing is connected to) are left out.

/// Master input that the slave's output is wired to.
const CASCADE: u8 = 2;
/// Bits of the master's ELCR that can be set: IRQ 0, 1 and 2 are always edge-triggered.
const ELCR_MASTER: u8 = 0xf8;
/// Bits of the slave's ELCR that can be set: IRQ 8 and 13 are always edge-triggered.
const ELCR_SLAVE: u8 = 0xde;

/// Which byte the next write to the odd port is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug)]
struct Pic {
    /// Levels of the inputs.
    lines: u8,
    /// Rising edges that wait for their acknowledgement.
    latched: u8,
    /// In-service register.
    isr: u8,
    /// Interrupt mask register.
    imr: u8,
    /// Edge/level control register: inputs that are level-triggered.
    elcr: u8,
    /// Inputs that a slave is wired to and that are followed as levels.
    slaves: u8,
    /// Upper five bits of the vectors, from ICW2.
    base: u8,
    /// ICW3 as written.
    icw3: u8,
    /// ICW1.SNGL: no cascade.
    single: bool,
    /// ICW1.IC4: an ICW4 follows.
    has_icw4: bool,
    /// ICW4.AEOI.
    auto_eoi: bool,
    /// ICW4.SFNM.
    special_fully_nested: bool,
    /// Rotate in automatic-EOI mode.
    rotate_on_auto_eoi: bool,
    /// Special mask mode.
    special_mask: bool,
    /// Input of lowest priority.
    lowest: u8,
    /// The even port reads ISR rather than IRR.
    read_isr: bool,
    /// The next read is a poll.
    poll: bool,
    expect: Expect,
}

impl Pic {
    fn new(slaves: u8) -> Self {
        Self {
            lines: 0,
            latched: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            slaves,
            base: 0,
            icw3: 0,
            single: false,
            has_icw4: false,
            auto_eoi: false,
            special_fully_nested: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            lowest: 7,
            read_isr: false,
            poll: false,
            expect: Expect::Ocw1,
        }
    }

    /// Interrupt request register.
    fn irr(&self) -> u8 {
        let level = self.elcr | self.slaves;
        self.latched & !level | self.lines & level
    }

    /// Sets an input; whether that made a request that was not there.
    fn set_line(&mut self, input: u8, level: bool) -> bool {
        let bit = 1 << (input & 7);
        let before = self.irr();
        if level {
            if self.lines & bit == 0 {
                self.latched |= bit;
            }
            self.lines |= bit;
        } else {
            self.lines &= !bit;
        }
        self.irr() & !before & bit != 0
    }

    /// The member of `inputs` with the highest priority.
    fn highest(&self, inputs: u8) -> Option<u8> {
        let first = self.lowest + 1;
        let rotated = inputs.rotate_right(u32::from(first));
        (rotated != 0).then(|| (rotated.trailing_zeros() as u8 + first) & 7)
    }

    /// Distance of an input from the highest priority.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest + 1) & 7
    }

    /// The input that the INT output stands for.
    fn request(&self) -> Option<u8> {
        if self.expect != Expect::Ocw1 {
            return None;
        }
        let input = self.highest(self.irr() & !self.imr)?;
        let mask = if self.special_mask { self.imr } else { 0 };
        let Some(served) = self.highest(self.isr & !mask) else {
            return Some(input);
        };
        // In special fully nested mode a slave may interrupt its own service routine.
        let nested = self.special_fully_nested && input == served && self.is_cascade(input);
        (self.rank(input) < self.rank(served) || nested).then_some(input)
    }

    fn is_cascade(&self, input: u8) -> bool {
        !self.single && self.slaves & self.icw3 & 1 << input != 0
    }

    /// INTA: moves the request into service.
    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << (input & 7);
        self.latched &= !bit;
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input & 7;
        }
    }

    fn read(&mut self, odd: bool) -> u8 {
        if self.poll {
            self.poll = false;
            return match self.request() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (odd, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    fn write(&mut self, odd: bool, value: u8) {
        if odd {
            self.write_odd(value);
        } else if value & 0x10 != 0 {
            self.icw1(value);
        } else if value & 0x08 != 0 {
            self.ocw3(value);
        } else {
            self.ocw2(value);
        }
    }

    fn write_odd(&mut self, value: u8) {
        let after_icw3 = if self.has_icw4 {
            Expect::Icw4
        } else {
            Expect::Ocw1
        };
        self.expect = match self.expect {
            Expect::Ocw1 => {
                self.imr = value;
                Expect::Ocw1
            }
            Expect::Icw2 => {
                self.base = value & 0xf8;
                if self.single {
                    after_icw3
                } else {
                    Expect::Icw3
                }
            }
            Expect::Icw3 => {
                self.icw3 = value;
                after_icw3
            }
            Expect::Icw4 => {
                self.auto_eoi = value & 0x02 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                Expect::Ocw1
            }
        };
    }

    /// Starts initialization: edges must come anew, masks and modes are cleared, input 7 gets the
    /// lowest priority.
    fn icw1(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            elcr: self.elcr,
            base: self.base,
            single: value & 0x02 != 0,
            has_icw4: value & 0x01 != 0,
            expect: Expect::Icw2,
            ..Self::new(self.slaves)
        };
    }

    /// End of interrupt and rotation.
    fn ocw2(&mut self, value: u8) {
        let (rotate, specific, eoi) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let level = value & 7;
        match (eoi, specific) {
            (true, false) => {
                // A level that is masked keeps its bit in special mask mode.
                let mask = if self.special_mask { self.imr } else { 0 };
                if let Some(served) = self.highest(self.isr & !mask) {
                    self.isr &= !(1 << served);
                    if rotate {
                        self.lowest = served;
                    }
                }
            }
            (true, true) => {
                self.isr &= !(1 << level);
                if rotate {
                    self.lowest = level;
                }
            }
            (false, true) if rotate => self.lowest = level,
            (false, true) => {}
            (false, false) => self.rotate_on_auto_eoi = rotate,
        }
    }

    /// Special mask mode, poll, and choice of the register to read.
    fn ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        if value & 0x04 != 0 {
            self.poll = true;
        } else if value & 0x02 != 0 {
            self.read_isr = value & 0x01 != 0;
        }
    }

    fn set_elcr(&mut self, value: u8) {
        // An edge latched before has no meaning for a level.
        self.latched &= !value;
        self.elcr = value;
    }
}

/// Master and slave.
#[derive(Clone, Debug)]
pub struct Pics {
    master: Pic,
    slave: Pic,
}

impl Default for Pics {
    fn default() -> Self {
        Self::new()
    }
}

impl Pics {
    /// Two controllers after power-up: everything is masked until they are initialized.
    pub fn new() -> Self {
        let masked = |slaves| Pic {
            imr: 0xff,
            ..Pic::new(slaves)
        };
        Self {
            master: masked(1 << CASCADE),
            slave: masked(0),
        }
    }

    /// Sets the level of IRQ 0 to 15; whether that made a request that was not there. IRQ 2 is
    /// the cascade and has no line.
    pub fn set_line(&mut self, irq: u8, level: bool) -> bool {
        let new = match irq {
            CASCADE => false,
            0..8 => self.master.set_line(irq, level),
            8..16 => self.slave.set_line(irq - 8, level),
            _ => false,
        };
        self.update();
        new
    }

    /// Whether an IRQ is masked, in the slave or on its way through the master.
    pub fn masked(&self, irq: u8) -> bool {
        match irq {
            0..8 => self.master.imr & 1 << irq != 0,
            8..16 => self.slave.imr & 1 << (irq - 8) != 0 || self.master.imr & 1 << CASCADE != 0,
            _ => true,
        }
    }

    /// Level of INTR.
    pub fn output(&self) -> bool {
        self.master.request().is_some()
    }

    /// INTA cycle: the vector. Without a request it is the one of IRQ 7 or 15, with no bit in
    /// service (8259A data sheet, "default IR7").
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.request() else {
            return self.master.base | 7;
        };
        self.master.acknowledge(input);
        let vector = if !self.master.is_cascade(input) {
            self.master.base | input
        } else if let Some(input) = self.slave.request() {
            self.slave.acknowledge(input);
            self.slave.base | input
        } else {
            self.slave.base | 7
        };
        self.update();
        vector
    }

    /// Reads port 20h, 21h, A0h, A1h, 4D0h or 4D1h.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.master.read(port & 1 != 0),
            0xa0 | 0xa1 => self.slave.read(port & 1 != 0),
            0x4d0 => self.master.elcr,
            0x4d1 => self.slave.elcr,
            _ => 0xff,
        };
        self.update();
        value
    }

    /// Writes port 20h, 21h, A0h, A1h, 4D0h or 4D1h.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 => self.master.write(port & 1 != 0, value),
            0xa0 | 0xa1 => self.slave.write(port & 1 != 0, value),
            0x4d0 => self.master.set_elcr(value & ELCR_MASTER),
            0x4d1 => self.slave.set_elcr(value & ELCR_SLAVE),
            _ => {}
        }
        self.update();
    }

    /// Brings the slave's output to the master's input.
    fn update(&mut self) {
        self.master
            .set_line(CASCADE, self.slave.request().is_some());
    }
}

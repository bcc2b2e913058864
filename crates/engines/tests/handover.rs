//! Hand-over from an engine that refuses instructions, without a KVM that does.

use std::sync::Arc;

use ringfence_bt::BtVcpu;
use ringfence_engine::{
    Clock, Debugging, EngineError, Exit, GuestMemory, Kick, NoLocalDevices, ProcessorState,
    ProfileReport, Registers, Segment, SegmentAttributes, SystemRegisters, Vcpu,
};
use ringfence_engines::Handover;
use ringfence_memory::RegionKind;

const CODE: u64 = 0x1000;
const DATA: u32 = 0x8000;

/// An engine that executes all but what begins with the given bytes.
#[derive(Debug)]
struct Picky {
    inner: BtVcpu,
    memory: Arc<GuestMemory>,
    refused: Vec<u8>,
}

impl Vcpu for Picky {
    fn run(&mut self, mut completion: u64) -> Result<Exit, EngineError> {
        loop {
            let rip = self.inner.registers().rip;
            let mut bytes = vec![0; self.refused.len()];
            let read = self.memory.read(rip, &mut bytes);
            if read.is_ok() && bytes == self.refused {
                return Err(EngineError::Emulation {
                    instruction: format!("{rip:x}  what it does not like"),
                    reason: "it does not like it".to_owned(),
                });
            }
            if let Some(exit) = self.inner.step(completion)? {
                return Ok(exit);
            }
            completion = 0;
        }
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        self.inner.kicker()
    }
    fn registers(&self) -> Registers {
        self.inner.registers()
    }
    fn set_registers(&mut self, registers: &Registers) {
        self.inner.set_registers(registers);
    }
    fn system_registers(&self) -> SystemRegisters {
        self.inner.system_registers()
    }
    fn set_system_registers(&mut self, registers: &SystemRegisters) {
        self.inner.set_system_registers(registers);
    }
    fn xsave(&self) -> Vec<u8> {
        self.inner.xsave()
    }
    fn set_xsave(&mut self, image: &[u8]) -> Result<(), EngineError> {
        self.inner.set_xsave(image)
    }
    fn state(&mut self) -> Result<ProcessorState, EngineError> {
        self.inner.state()
    }
    fn set_state(&mut self, state: &ProcessorState) -> Result<(), EngineError> {
        self.inner.set_state(state)
    }
    fn set_debugging(&mut self, debugging: &Debugging) -> Result<(), EngineError> {
        self.inner.set_debugging(debugging)
    }
    fn objection(&self, registers: &SystemRegisters) -> Option<&'static str> {
        self.inner.objection(registers)
    }
    fn recent_code(&mut self) -> Vec<String> {
        self.inner.recent_code()
    }
    fn start_profile(&mut self, hertz: u32) -> Result<(), EngineError> {
        self.inner.start_profile(hertz)
    }
    fn profile(&self, most: usize) -> ProfileReport {
        self.inner.profile(most)
    }
    fn statistics(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A processor in protected mode before `code`, on an engine that refuses `refused`.
fn guest(code: &[u8], refused: &[u8], kernel_chips: bool) -> (Handover, Arc<GuestMemory>) {
    let memory = Arc::new(GuestMemory::new());
    memory.map(0, 0x10000, RegionKind::Ram).unwrap();
    memory.write(CODE, code).unwrap();
    let clock = Arc::new(Clock::new());
    let make = {
        let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
        move || {
            let (memory, clock) = (Arc::clone(&memory), Arc::clone(&clock));
            BtVcpu::new(0, 1, memory, Arc::new(NoLocalDevices), clock)
        }
    };
    let main = Picky {
        inner: make().unwrap(),
        memory: Arc::clone(&memory),
        refused: refused.to_vec(),
    };
    let mut vcpu = Handover::new(Box::new(main), kernel_chips, make);
    let mut system = vcpu.system_registers();
    let segment = |attributes, selector| Segment {
        base: 0,
        limit: u32::MAX,
        attributes,
        selector,
    };
    system.segments = [segment(SegmentAttributes::DATA32, 16); 6];
    system.segments[1] = segment(SegmentAttributes::CODE32, 8);
    system.cr0 = 0x11;
    vcpu.set_system_registers(&system);
    let mut registers = Registers {
        rip: CODE,
        rflags: 2,
        ..Registers::default()
    };
    registers.gpr[4] = 0xf000;
    vcpu.set_registers(&registers);
    (vcpu, memory)
}

fn count(vcpu: &Handover, name: &str) -> u64 {
    let found = vcpu.statistics().into_iter().find(|(n, _)| *n == name);
    found.map_or(0, |(_, value)| value)
}

const OUT: Exit = Exit::PortOut {
    port: 0xf4,
    size: 1,
    value: 7,
};

#[test]
fn what_is_refused_is_done_and_counted() {
    // mov al, 5; inc eax; inc eax; out F4h, al: INC EAX is refused.
    let (mut vcpu, _) = guest(&[0xb0, 5, 0x40, 0x40, 0xe6, 0xf4], &[0x40], true);
    assert_eq!(vcpu.run(0).unwrap(), OUT);
    assert_eq!(vcpu.registers().rip, CODE + 4);
    assert!(count(&vcpu, "handovers") >= 1);
    assert!(count(&vcpu, "handover_instructions") >= 2);
}

#[test]
fn nothing_is_handed_over_that_is_not_refused() {
    let (mut vcpu, _) = guest(&[0xb0, 7, 0xe6, 0xf4], &[0x40], true);
    assert_eq!(vcpu.run(0).unwrap(), OUT);
    assert_eq!(count(&vcpu, "handovers"), 0);
}

#[test]
fn a_device_answers_in_the_middle() {
    // in al, 10h is refused, then out F4h, al.
    let (mut vcpu, _) = guest(&[0xe4, 0x10, 0xe6, 0xf4], &[0xe4], true);
    let port_in = Exit::PortIn {
        port: 0x10,
        size: 1,
    };
    assert_eq!(vcpu.run(0).unwrap(), port_in);
    assert!(matches!(vcpu.state(), Err(EngineError::BadState(_))));
    assert_eq!(vcpu.run(7).unwrap(), OUT);
}

#[test]
fn memory_is_shared() {
    // mov byte [DATA], 7 is refused; mov al, [DATA]; out F4h, al
    let [a, b, c, d] = DATA.to_le_bytes();
    let code = [0xc6, 5, a, b, c, d, 7, 0xa0, a, b, c, d, 0xe6, 0xf4];
    let (mut vcpu, memory) = guest(&code, &[0xc6], true);
    assert_eq!(vcpu.run(0).unwrap(), OUT);
    let mut byte = [0];
    memory.read(DATA.into(), &mut byte).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn repeated_refusals_make_longer_bursts() {
    // mov ecx, 5000; l: inc eax; dec ecx; jnz l; mov al, 7; out F4h, al
    let code = [
        0xb9, 0x88, 0x13, 0, 0, 0x40, 0x49, 0x75, 0xfc, 0xb0, 7, 0xe6, 0xf4,
    ];
    let (mut vcpu, _) = guest(&code, &[0x40], true);
    assert_eq!(vcpu.run(0).unwrap(), OUT);
    assert!(count(&vcpu, "handovers") < 2500);
    assert!(count(&vcpu, "handover_instructions") >= 5000);
}

#[test]
fn what_neither_can_do_names_the_instruction() {
    // rdpkru, of a feature that bt has not.
    let code = [0x0f, 0x01, 0xee];
    let (mut vcpu, _) = guest(&code, &code, true);
    let error = vcpu.run(0).unwrap_err();
    assert!(matches!(&error, EngineError::Emulation { instruction, .. }
        if instruction == "1000  what it does not like"));
    let text = error.to_string();
    assert!(
        text.contains("it does not like it; bt can't either: it has no such"),
        "{text}"
    );
    assert_eq!(vcpu.registers().rip, CODE);
}

#[test]
fn the_kernels_chips_are_out_of_reach() {
    // mov eax, [FEE00020h]
    let code = [0xa1, 0x20, 0, 0xe0, 0xfe];
    let (mut vcpu, _) = guest(&code, &[0xa1], true);
    let text = vcpu.run(0).unwrap_err().to_string();
    assert!(text.contains("the kernel's chip at 0xfee00020"), "{text}");
    let (mut vcpu, _) = guest(&code, &[0xa1], false);
    assert!(matches!(
        vcpu.run(0).unwrap(),
        Exit::MmioRead {
            address: 0xfee0_0020,
            size: 4
        }
    ));
}

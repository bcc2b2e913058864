//! Accesses of the processors: ports, registers in memory, MSRs, interrupts.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use ringfence_engine::{IoAddress, LocalDevices, VcpuEvent};

use super::slot::summary;
use super::{Pass, Platform, lock, pm_timer_ticks};
use crate::alarm::Timers as _;
use crate::board::{Board, FPU_PORT};
use crate::lapic::Effect;
use crate::{hpet, ioapic};

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;

/// Where in the HPET's window an access lies.
fn hpet_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(hpet::BASE)
        .filter(|&offset| offset < hpet::SIZE)
}

impl Platform {
    fn lapic_read(&self, vcpu: u32, offset: u32, size: u8) -> Option<u64> {
        let byte = offset & 0xf;
        // Only the first four bytes of each sixteen hold a register.
        if byte >= 4 {
            return Some(0);
        }
        let mut pass = Pass::default();
        let value = self.with_lapic(vcpu, &mut pass, |lapic, clock| lapic.read(offset, clock))?;
        self.finish(pass);
        let mask = if size >= 8 {
            u64::MAX
        } else {
            (1 << (u32::from(size) * 8)) - 1
        };
        Some(u64::from(value) >> (byte * 8) & mask)
    }
}

impl LocalDevices for Platform {
    fn port_read(&self, _vcpu: u32, port: u16, size: u8) -> Option<u32> {
        if !Board::has_port(port) {
            if size == 4 && u32::from(port) == self.pm_timer.load(Relaxed) {
                return Some(pm_timer_ticks(self.clock.nanoseconds()));
            }
            return self.video.port_read(port, size);
        }
        let mut pass = Pass::default();
        let value = self.with_board(&mut pass, |board, now, _| {
            // The bus splits a wide access into bytes; nobody drives those beside the chips.
            let byte = |index: u8| match port.checked_add(index.into()) {
                Some(port) if Board::has_port(port) => board.port_read(port, now),
                _ => 0xff,
            };
            let bytes = (0..size.min(4)).map(byte).enumerate();
            bytes.fold(0, |value, (index, byte)| {
                value | u32::from(byte) << (index * 8)
            })
        });
        self.finish(pass);
        Some(value)
    }

    fn port_write(&self, _vcpu: u32, port: u16, size: u8, value: u32) -> bool {
        if self
            .io_events
            .signal(IoAddress::Port(port), size, value.into())
        {
            return true;
        }
        if !Board::has_port(port) {
            return self.video.port_write(port, size, value);
        }
        let mut pass = Pass::default();
        self.with_board(&mut pass, |board, now, bus| {
            if port == FPU_PORT {
                board.ignore_fpu_error(bus);
            }
            for (index, byte) in (0..size.min(4)).zip(value.to_le_bytes()) {
                if let Some(port) = port.checked_add(index.into())
                    && Board::has_port(port)
                {
                    board.port_write(port, byte, now);
                }
            }
        });
        self.finish(pass);
        true
    }

    fn mmio_read(&self, vcpu: u32, address: u64, size: u8) -> Option<u64> {
        if self.slot(vcpu)?.page.load(SeqCst) == address & !0xfff {
            return self.lapic_read(vcpu, (address & 0xfff) as u32, size);
        }
        if let Some(value) = self.video.mmio_read(address, size) {
            return Some(value);
        }
        if let Some(offset) = hpet_offset(address) {
            let now = self.clock.nanoseconds();
            return Some(lock(&self.board).hpet.read(offset, size, now));
        }
        let offset = address
            .checked_sub(ioapic::BASE)
            .filter(|&offset| offset < ioapic::SIZE)?;
        Some(lock(&self.board).ioapic.read(offset, size))
    }

    fn mmio_write(&self, vcpu: u32, address: u64, size: u8, value: u64) -> bool {
        let Some(slot) = self.slot(vcpu) else {
            return false;
        };
        if self.video.mmio_write(address, size, value) {
            return true;
        }
        let mut pass = Pass::default();
        if slot.page.load(SeqCst) == address & !0xfff {
            // Registers are written whole (SDM vol. 3A, 11.4.1); the rest is ignored.
            if size == 4 && address & 0xf == 0 {
                let offset = (address & 0xfff) as u32;
                let effect = self.with_lapic(vcpu, &mut pass, |lapic, clock| {
                    lapic.write(offset, value as u32, clock)
                });
                self.apply(effect.unwrap_or(Effect::None), &mut pass);
            }
        } else if let Some(offset) = hpet_offset(address) {
            self.with_board(&mut pass, |board, now, _| {
                board.hpet.write(offset, size, value, now);
            });
        } else if let Some(offset) = address
            .checked_sub(ioapic::BASE)
            .filter(|&offset| offset < ioapic::SIZE)
        {
            let value = if size >= 4 {
                value
            } else {
                value & ((1 << (size * 8)) - 1)
            };
            self.with_board(&mut pass, |board, _, bus| {
                board.ioapic.write(offset, value as u32, bus);
            });
        } else {
            return self
                .io_events
                .signal(IoAddress::Memory(address), size, value);
        }
        self.finish(pass);
        true
    }

    fn interrupt_pending(&self, vcpu: u32) -> bool {
        let Some(slot) = self.slot(vcpu) else {
            return false;
        };
        let summary = slot.summary.load(SeqCst);
        summary & summary::INTERRUPT != 0
            || summary & summary::ACCEPTS_PIC != 0 && self.pic_output.load(SeqCst)
    }

    fn acknowledge_interrupt(&self, vcpu: u32) -> Option<u8> {
        let summary = self.slot(vcpu)?.summary.load(SeqCst);
        let mut pass = Pass::default();
        let mut vector = None;
        // The PIC goes first: its interrupts know no priority of the local APIC.
        if summary & summary::ACCEPTS_PIC != 0 && self.pic_output.load(SeqCst) {
            vector = self.with_board(&mut pass, |board, _, _| {
                // Another processor may have been faster.
                board.pics.output().then(|| board.pics.acknowledge())
            });
            if vector.is_some() {
                self.with_lapic(vcpu, &mut pass, |lapic, _| lapic.acknowledge_pic());
            }
        }
        if vector.is_none() && summary & summary::WAITING == 0 {
            vector = self
                .with_lapic(vcpu, &mut pass, |lapic, _| lapic.acknowledge())
                .flatten();
        }
        if self.interrupt_pending(vcpu) {
            pass.kick(vcpu);
        }
        self.finish(pass);
        vector
    }

    fn take_event(&self, vcpu: u32) -> Option<VcpuEvent> {
        if self.slot(vcpu)?.summary.load(SeqCst) & summary::EVENT == 0 {
            return None;
        }
        let mut pass = Pass::default();
        let event = self
            .with_lapic(vcpu, &mut pass, |lapic, _| lapic.take_event())
            .flatten();
        self.finish(pass);
        event
    }

    fn end_can_wait(&self, vcpu: u32) -> bool {
        self.slot(vcpu)
            .is_some_and(|slot| lock(&slot.lapic).end_can_wait())
    }

    fn wake(&self, apic_id: u32) {
        // A local APIC has the number of its processor.
        if let Some(slot) = self.slot(apic_id) {
            slot.woken.store(true, SeqCst);
            let mut pass = Pass::default();
            pass.kick(apic_id);
            self.finish(pass);
        }
    }

    fn take_wake(&self, vcpu: u32) -> bool {
        self.slot(vcpu)
            .is_some_and(|slot| slot.woken.swap(false, SeqCst))
    }

    fn waits_for_startup(&self, vcpu: u32) -> bool {
        self.slot(vcpu)
            .is_some_and(|slot| slot.summary.load(SeqCst) & summary::WAITING != 0)
    }

    fn read_msr(&self, vcpu: u32, index: u32) -> Option<Result<u64, ()>> {
        let mut pass = Pass::default();
        let result = self.with_lapic(vcpu, &mut pass, |lapic, clock| match index {
            IA32_APIC_BASE => Some(Ok(lapic.base())),
            IA32_TSC_DEADLINE => Some(Ok(lapic.tsc_deadline(clock))),
            X2APIC_FIRST..=X2APIC_LAST => Some(lapic.read_msr(index - X2APIC_FIRST, clock)),
            _ => None,
        });
        self.finish(pass);
        result.flatten()
    }

    fn write_msr(&self, vcpu: u32, index: u32, value: u64) -> Option<Result<(), ()>> {
        let mut pass = Pass::default();
        let result = self.with_lapic(vcpu, &mut pass, |lapic, clock| match index {
            IA32_APIC_BASE => Some(lapic.set_base(value).map(|()| Effect::None)),
            IA32_TSC_DEADLINE => {
                lapic.set_tsc_deadline(value, clock);
                Some(Ok(Effect::None))
            }
            X2APIC_FIRST..=X2APIC_LAST => Some(lapic.write_msr(index - X2APIC_FIRST, value, clock)),
            _ => None,
        });
        let result = result
            .flatten()?
            .map(|effect| self.apply(effect, &mut pass));
        self.finish(pass);
        Some(result)
    }

    fn set_fpu_error(&self, _vcpu: u32, active: bool) {
        let mut pass = Pass::default();
        self.with_board(&mut pass, |board, _, bus| board.set_fpu_error(active, bus));
        self.finish(pass);
    }

    fn ignores_fpu_error(&self, _vcpu: u32) -> bool {
        lock(&self.board).ignores_fpu_error()
    }

    fn deadline(&self) -> u64 {
        let deadlines = self.slots.iter().map(|slot| slot.deadline.load(SeqCst));
        deadlines.fold(self.pit_deadline.load(SeqCst), u64::min)
    }

    fn serve_timers(&self) {
        self.serve();
    }

    fn task_priority(&self, vcpu: u32) -> u64 {
        self.slot(vcpu).map_or(0, |slot| lock(&slot.lapic).cr8())
    }

    fn set_task_priority(&self, vcpu: u32, cr8: u64) {
        let mut pass = Pass::default();
        self.with_lapic(vcpu, &mut pass, |lapic, _| lapic.set_cr8(cr8));
        self.finish(pass);
    }
}

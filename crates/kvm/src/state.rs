//! The state of a processor in the form that engines exchange.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, Msrs,
    kvm_debugregs, kvm_mp_state, kvm_msr_entry, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd};
use ringfence_engine::{
    Activity, DebugRegisters, EngineError, Events, Injected, InjectedKind, ProcessorState,
    STATE_MSRS,
};
use ringfence_x86::{cr, exception, msr};

use crate::host::Host;
use crate::machine::refused;
use crate::registers;

/// Shadow of STI and of a load of SS (KVM_X86_SHADOW_INT_STI, KVM_X86_SHADOW_INT_MOV_SS).
const SHADOW_STI: u8 = 2;
/// XSTATE_BV of an XSAVE image.
const XSTATE_BV: std::ops::Range<usize> = 512..520;
/// Bytes of the image of KVM_GET_XSAVE.
const XSAVE_SIZE: usize = 4096;

/// Which registers this KVM has.
#[derive(Clone, Debug)]
pub struct Sets {
    xsave: bool,
    xcrs: bool,
    debug: bool,
    msrs: Vec<u32>,
}

impl Sets {
    /// What of `fd` can be read. A register that KVM refuses to read is none of the guest's.
    pub fn of(host: &Host, fd: &VcpuFd) -> Self {
        let has = |cap| host.kvm.check_extension(cap);
        let msrs = STATE_MSRS
            .into_iter()
            .filter(|&index| read_msrs(fd, &[index]).is_ok_and(|values| values.len() == 1))
            .collect();
        Self {
            xsave: has(Cap::Xsave),
            xcrs: has(Cap::Xcrs),
            debug: has(Cap::Debugregs),
            msrs,
        }
    }
}

fn read_msrs(fd: &VcpuFd, indices: &[u32]) -> Result<Vec<(u32, u64)>, EngineError> {
    let entries: Vec<_> = indices
        .iter()
        .map(|&index| kvm_msr_entry {
            index,
            ..Default::default()
        })
        .collect();
    let mut msrs = Msrs::from_entries(&entries)
        .map_err(|_| EngineError::Internal("too many registers".to_owned()))?;
    let count = fd.get_msrs(&mut msrs).map_err(refused("MSRs"))?;
    let read = msrs.as_slice().iter().take(count);
    Ok(read.map(|entry| (entry.index, entry.data)).collect())
}

/// Sets one MSR; whether KVM accepted it.
pub fn write_msr(fd: &VcpuFd, index: u32, data: u64) -> bool {
    let entry = kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    Msrs::from_entries(&[entry]).is_ok_and(|msrs| fd.set_msrs(&msrs).is_ok_and(|count| count == 1))
}

/// The state of `fd`; `activity` is what its engine knows of it without chips in the kernel.
pub fn get(
    fd: &VcpuFd,
    sets: &Sets,
    activity: Option<Activity>,
) -> Result<ProcessorState, EngineError> {
    let general = fd.get_regs().map_err(refused("general registers"))?;
    let sregs = fd.get_sregs().map_err(refused("system registers"))?;
    let mut state = ProcessorState {
        registers: registers::general(&general),
        system: registers::system(&sregs),
        xcr0: cr::XCR0_X87,
        xsave: xsave(fd, sets)?,
        msrs: read_msrs(fd, &sets.msrs)?,
        ..ProcessorState::default()
    };
    if sets.xcrs {
        let xcrs = fd
            .get_xcrs()
            .map_err(refused("extended control registers"))?;
        let count = xcrs.nr_xcrs as usize;
        let found = xcrs.xcrs.iter().take(count).find(|entry| entry.xcr == 0);
        state.xcr0 = found.map_or(cr::XCR0_X87, |entry| entry.value);
    }
    if sets.debug {
        let debug = fd.get_debug_regs().map_err(refused("debug registers"))?;
        state.debug = DebugRegisters {
            addresses: debug.db,
            dr6: debug.dr6,
            dr7: debug.dr7,
        };
    }
    let events = fd.get_vcpu_events().map_err(refused("events in flight"))?;
    state.events = from_events(&events);
    state.activity = match activity {
        Some(activity) => activity,
        None => match fd.get_mp_state().map_err(refused("its state"))?.mp_state {
            KVM_MP_STATE_HALTED => Activity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::WaitingForStartup,
            _ => Activity::Running,
        },
    };
    Ok(state)
}

fn from_events(events: &kvm_vcpu_events) -> Events {
    let exception = &events.exception;
    let soft = matches!(exception.nr, exception::BP | exception::OF);
    let injected = if (exception.injected != 0 || exception.pending != 0) && !soft {
        Some(Injected {
            vector: exception.nr,
            error_code: (exception.has_error_code != 0).then_some(exception.error_code),
            kind: InjectedKind::Exception,
        })
    } else if events.interrupt.injected != 0 && events.interrupt.soft == 0 {
        Some(Injected {
            vector: events.interrupt.nr,
            error_code: None,
            kind: InjectedKind::Interrupt,
        })
    } else if events.nmi.injected != 0 {
        Some(Injected {
            vector: exception::NMI,
            error_code: None,
            kind: InjectedKind::Nmi,
        })
    } else {
        None
    };
    Events {
        interrupt_shadow: events.interrupt.shadow != 0,
        nmi_pending: events.nmi.pending != 0,
        nmi_blocked: events.nmi.masked != 0,
        injected,
    }
}

fn to_events(events: &Events) -> kvm_vcpu_events {
    let mut out = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    out.interrupt.shadow = if events.interrupt_shadow {
        SHADOW_STI
    } else {
        0
    };
    out.nmi.pending = events.nmi_pending.into();
    out.nmi.masked = events.nmi_blocked.into();
    match events.injected {
        Some(event) if event.kind == InjectedKind::Exception => {
            out.exception.injected = 1;
            out.exception.nr = event.vector;
            out.exception.has_error_code = event.error_code.is_some().into();
            out.exception.error_code = event.error_code.unwrap_or(0);
        }
        Some(event) if event.kind == InjectedKind::Interrupt => {
            out.interrupt.injected = 1;
            out.interrupt.nr = event.vector;
        }
        Some(_) => out.nmi.injected = 1,
        None => {}
    }
    out
}

/// The standard-format XSAVE image.
pub fn xsave(fd: &VcpuFd, sets: &Sets) -> Result<Vec<u8>, EngineError> {
    if sets.xsave {
        let image = fd.get_xsave().map_err(refused("XSAVE state"))?;
        return Ok(image.region.iter().flat_map(|w| w.to_le_bytes()).collect());
    }
    // FXSAVE's layout (SDM vol. 1, 10.5.1), which the legacy region is.
    let fpu = fd.get_fpu().map_err(refused("x87 and SSE state"))?;
    let mut image = vec![0; XSAVE_SIZE];
    image[0..2].copy_from_slice(&fpu.fcw.to_le_bytes());
    image[2..4].copy_from_slice(&fpu.fsw.to_le_bytes());
    image[4] = fpu.ftwx;
    image[6..8].copy_from_slice(&fpu.last_opcode.to_le_bytes());
    image[8..16].copy_from_slice(&fpu.last_ip.to_le_bytes());
    image[16..24].copy_from_slice(&fpu.last_dp.to_le_bytes());
    image[24..28].copy_from_slice(&fpu.mxcsr.to_le_bytes());
    for (register, place) in fpu.fpr.iter().zip(image[32..160].chunks_exact_mut(16)) {
        place.copy_from_slice(register);
    }
    for (register, place) in fpu.xmm.iter().zip(image[160..416].chunks_exact_mut(16)) {
        place.copy_from_slice(register);
    }
    image[XSTATE_BV].copy_from_slice(&3u64.to_le_bytes());
    Ok(image)
}

/// Sets x87, SSE and AVX state from a standard-format image.
pub fn set_xsave(fd: &VcpuFd, sets: &Sets, image: &[u8]) -> Result<(), EngineError> {
    let bad = |why: &str| Err(EngineError::BadState(format!("XSAVE image: {why}")));
    if image.len() < 576 || image.len() > XSAVE_SIZE {
        return bad("its size is not between 576 and 4096 bytes");
    }
    if image[520..576].iter().any(|&byte| byte != 0) {
        return bad("it is not in standard format, or reserved header bytes are set");
    }
    let half = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| image[at + index]));
    if sets.xsave {
        let mut area = kvm_xsave::default();
        for (word, bytes) in area.region.iter_mut().zip(image.chunks_exact(4)) {
            *word = u32::from_le_bytes(std::array::from_fn(|index| bytes[index]));
        }
        // SAFETY: the structure has the 4096 bytes that KVM_SET_XSAVE reads without AMX, which no
        // machine is offered.
        return unsafe { fd.set_xsave(&area) }.or_else(|error| match error.errno() {
            libc::EINVAL => bad("this KVM refuses it"),
            _ => Err(refused("XSAVE state")(error)),
        });
    }
    let mut fpu = kvm_bindings::kvm_fpu {
        fcw: half(0),
        fsw: half(2),
        ftwx: image[4],
        last_opcode: half(6),
        last_ip: long(8),
        last_dp: long(16),
        mxcsr: long(24) as u32,
        ..Default::default()
    };
    for (register, place) in fpu.fpr.iter_mut().zip(image[32..160].chunks_exact(16)) {
        register.copy_from_slice(place);
    }
    for (register, place) in fpu.xmm.iter_mut().zip(image[160..416].chunks_exact(16)) {
        register.copy_from_slice(place);
    }
    fd.set_fpu(&fpu).map_err(refused("x87 and SSE state"))
}

/// Sets all of the state but for [`ProcessorState::activity`], where the kernel has no chips.
pub fn set(
    fd: &VcpuFd,
    sets: &Sets,
    state: &ProcessorState,
    kernel_chips: bool,
) -> Result<(), EngineError> {
    let refuses = |what: &'static str| {
        move |error: kvm_ioctls::Error| match error.errno() {
            libc::EINVAL => EngineError::BadState(format!("this KVM refuses {what}")),
            _ => refused(what)(error),
        }
    };
    // The image is checked against XCR0, and system registers against CPUID.
    let mut sregs = fd.get_sregs().map_err(refused("system registers"))?;
    registers::to_system(&state.system, &mut sregs);
    sregs.interrupt_bitmap = [0; 4];
    fd.set_sregs(&sregs).map_err(refuses("system registers"))?;
    if sets.xcrs {
        let mut xcrs = kvm_xcrs {
            nr_xcrs: 1,
            ..Default::default()
        };
        xcrs.xcrs[0].value = state.xcr0 | cr::XCR0_X87;
        fd.set_xcrs(&xcrs).map_err(refuses("this XCR0"))?;
    }
    set_xsave(fd, sets, &state.xsave)?;
    set_msrs(fd, sets, &state.msrs)?;
    if sets.debug {
        let debug = kvm_debugregs {
            db: state.debug.addresses,
            dr6: state.debug.dr6,
            dr7: state.debug.dr7,
            ..Default::default()
        };
        fd.set_debug_regs(&debug)
            .map_err(refuses("debug registers"))?;
    }
    let general = registers::to_general(&state.registers);
    fd.set_regs(&general)
        .map_err(refuses("general registers"))?;
    if kernel_chips {
        let mp_state = match state.activity {
            Activity::Running => KVM_MP_STATE_RUNNABLE,
            Activity::Halted => KVM_MP_STATE_HALTED,
            Activity::WaitingForStartup => KVM_MP_STATE_UNINITIALIZED,
        };
        fd.set_mp_state(kvm_mp_state { mp_state })
            .map_err(refuses("its state"))?;
    }
    fd.set_vcpu_events(&to_events(&state.events))
        .map_err(refuses("events in flight"))
}

/// Sets the MSRs that this KVM has; those that it lacks are left out where they hold nothing.
fn set_msrs(fd: &VcpuFd, sets: &Sets, msrs: &[(u32, u64)]) -> Result<(), EngineError> {
    // A change of IA32_TSC_ADJUST moves the TSC, which is the machine's.
    let known = msrs
        .iter()
        .filter(|(index, _)| sets.msrs.contains(index) && *index != msr::IA32_TSC_ADJUST);
    let entries: Vec<_> = known
        .map(|&(index, data)| kvm_msr_entry {
            index,
            data,
            ..Default::default()
        })
        .collect();
    let mut left = entries.as_slice();
    while !left.is_empty() {
        let list = Msrs::from_entries(left)
            .map_err(|_| EngineError::Internal("too many registers".to_owned()))?;
        let count = fd.set_msrs(&list).map_err(refused("MSRs"))?;
        // KVM stops at the first that it refuses.
        if let Some(entry) = left.get(count)
            && entry.data != 0
        {
            let (index, value) = (entry.index, entry.data);
            let what = format!("this KVM refuses {value:#x} in MSR {index:#x}");
            return Err(EngineError::BadState(what));
        }
        left = left.get(count + 1..).unwrap_or_default();
    }
    Ok(())
}

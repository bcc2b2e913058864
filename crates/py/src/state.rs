//! The state of a processor as a dictionary.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use ringfence_engine::{Activity, Injected, InjectedKind, ProcessorState};

use crate::error::Failure;
use crate::registers;

const ACTIVITIES: [(&str, Activity); 3] = [
    ("running", Activity::Running),
    ("halted", Activity::Halted),
    ("waiting-for-startup", Activity::WaitingForStartup),
];

const KINDS: [(&str, InjectedKind); 3] = [
    ("exception", InjectedKind::Exception),
    ("interrupt", InjectedKind::Interrupt),
    ("nmi", InjectedKind::Nmi),
];

fn name<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, other)| *other == value);
    found.map_or("?", |(name, _)| name)
}

fn value<T: Copy>(names: &[(&'static str, T)], name: &str) -> PyResult<T> {
    let found = names.iter().find(|(other, _)| *other == name);
    let bad = || Failure::BadArgument(format!("a processor is never {name:?}")).into();
    found.map(|(_, value)| *value).ok_or_else(bad)
}

/// The state as a dictionary of plain values.
pub fn to_dict<'py>(py: Python<'py>, state: &ProcessorState) -> PyResult<Bound<'py, PyDict>> {
    let debug = PyDict::new(py);
    for (index, address) in state.debug.addresses.iter().enumerate() {
        debug.set_item(format!("dr{index}"), address)?;
    }
    debug.set_item("dr6", state.debug.dr6)?;
    debug.set_item("dr7", state.debug.dr7)?;
    let msrs = PyDict::new(py);
    for (index, value) in &state.msrs {
        msrs.set_item(index, value)?;
    }
    let events = PyDict::new(py);
    events.set_item("interrupt_shadow", state.events.interrupt_shadow)?;
    events.set_item("nmi_pending", state.events.nmi_pending)?;
    events.set_item("nmi_blocked", state.events.nmi_blocked)?;
    let injected = state.events.injected;
    events.set_item(
        "injected",
        injected.map(|event| (name(&KINDS, event.kind), event.vector, event.error_code)),
    )?;
    let dict = PyDict::new(py);
    dict.set_item(
        "registers",
        registers::general_to_dict(py, &state.registers)?,
    )?;
    dict.set_item(
        "system_registers",
        registers::system_to_dict(py, &state.system)?,
    )?;
    dict.set_item("xcr0", state.xcr0)?;
    dict.set_item("xsave", PyBytes::new(py, &state.xsave))?;
    dict.set_item("debug", debug)?;
    dict.set_item("msrs", msrs)?;
    dict.set_item("events", events)?;
    dict.set_item("activity", name(&ACTIVITIES, state.activity))?;
    Ok(dict)
}

/// An entry of a dictionary that must be there.
fn entry<'py>(dict: &Bound<'py, PyDict>, key: &str) -> PyResult<Bound<'py, PyAny>> {
    let missing = || Failure::BadArgument(format!("the state has no {key:?}")).into();
    dict.get_item(key)?.ok_or_else(missing)
}

fn inner<'py>(dict: &Bound<'py, PyDict>, key: &str) -> PyResult<Bound<'py, PyDict>> {
    Ok(entry(dict, key)?.cast_into::<PyDict>()?)
}

/// The state that a dictionary names.
pub fn from_dict(dict: &Bound<'_, PyDict>) -> PyResult<ProcessorState> {
    let mut state = ProcessorState {
        xcr0: entry(dict, "xcr0")?.extract()?,
        xsave: entry(dict, "xsave")?.extract()?,
        ..ProcessorState::default()
    };
    registers::update_general(&mut state.registers, &inner(dict, "registers")?)?;
    registers::update_system(&mut state.system, &inner(dict, "system_registers")?)?;
    let debug = inner(dict, "debug")?;
    for (index, address) in state.debug.addresses.iter_mut().enumerate() {
        *address = entry(&debug, &format!("dr{index}"))?.extract()?;
    }
    state.debug.dr6 = entry(&debug, "dr6")?.extract()?;
    state.debug.dr7 = entry(&debug, "dr7")?.extract()?;
    for (index, value) in inner(dict, "msrs")? {
        state.msrs.push((index.extract()?, value.extract()?));
    }
    let events = inner(dict, "events")?;
    state.events.interrupt_shadow = entry(&events, "interrupt_shadow")?.extract()?;
    state.events.nmi_pending = entry(&events, "nmi_pending")?.extract()?;
    state.events.nmi_blocked = entry(&events, "nmi_blocked")?.extract()?;
    let injected: Option<(String, u8, Option<u32>)> = entry(&events, "injected")?.extract()?;
    if let Some((kind, vector, error_code)) = injected {
        state.events.injected = Some(Injected {
            vector,
            error_code,
            kind: value(&KINDS, &kind)?,
        });
    }
    let activity: String = entry(dict, "activity")?.extract()?;
    state.activity = value(&ACTIVITIES, &activity)?;
    Ok(state)
}

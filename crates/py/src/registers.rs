//! Register sets as dictionaries.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringfence_engine::{DescriptorTable, Registers, Segment, SegmentAttributes, SystemRegisters};

use crate::error::Failure;

/// Names of the general registers in the order of their encodings.
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Names of the segment registers in the order of their encodings.
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

fn unknown(name: &str) -> PyErr {
    Failure::BadArgument(format!("there is no register {name:?}")).into()
}

/// General registers, RIP and RFLAGS as a dictionary.
pub fn general_to_dict<'py>(
    py: Python<'py>,
    registers: &Registers,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in GENERAL.iter().zip(registers.gpr) {
        dict.set_item(name, value)?;
    }
    dict.set_item("rip", registers.rip)?;
    dict.set_item("rflags", registers.rflags)?;
    Ok(dict)
}

/// Changes the registers that `values` names.
pub fn update_general(registers: &mut Registers, values: &Bound<'_, PyDict>) -> PyResult<()> {
    for (name, value) in values {
        let name = name.extract::<String>()?;
        let register = match GENERAL.iter().position(|general| *general == name) {
            Some(index) => &mut registers.gpr[index],
            None if name == "rip" => &mut registers.rip,
            None if name == "rflags" => &mut registers.rflags,
            None => return Err(unknown(&name)),
        };
        *register = value.extract()?;
    }
    Ok(())
}

/// Segment, control and descriptor-table registers as a dictionary.
pub fn system_to_dict<'py>(
    py: Python<'py>,
    registers: &SystemRegisters,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, segment) in SEGMENTS.iter().zip(&registers.segments) {
        dict.set_item(name, segment_to_dict(py, segment)?)?;
    }
    dict.set_item("ldtr", segment_to_dict(py, &registers.ldtr)?)?;
    dict.set_item("tr", segment_to_dict(py, &registers.tr)?)?;
    dict.set_item("gdtr", table_to_dict(py, registers.gdtr)?)?;
    dict.set_item("idtr", table_to_dict(py, registers.idtr)?)?;
    dict.set_item("cr0", registers.cr0)?;
    dict.set_item("cr2", registers.cr2)?;
    dict.set_item("cr3", registers.cr3)?;
    dict.set_item("cr4", registers.cr4)?;
    dict.set_item("cr8", registers.cr8)?;
    dict.set_item("efer", registers.efer)?;
    dict.set_item("apic_base", registers.apic_base)?;
    Ok(dict)
}

/// Changes the registers that `values` names.
pub fn update_system(registers: &mut SystemRegisters, values: &Bound<'_, PyDict>) -> PyResult<()> {
    for (name, value) in values {
        let name = name.extract::<String>()?;
        if let Some(index) = SEGMENTS.iter().position(|segment| *segment == name) {
            update_segment(&mut registers.segments[index], value.cast::<PyDict>()?)?;
            continue;
        }
        match name.as_str() {
            "ldtr" => update_segment(&mut registers.ldtr, value.cast::<PyDict>()?)?,
            "tr" => update_segment(&mut registers.tr, value.cast::<PyDict>()?)?,
            "gdtr" => update_table(&mut registers.gdtr, value.cast::<PyDict>()?)?,
            "idtr" => update_table(&mut registers.idtr, value.cast::<PyDict>()?)?,
            "cr0" => registers.cr0 = value.extract()?,
            "cr2" => registers.cr2 = value.extract()?,
            "cr3" => registers.cr3 = value.extract()?,
            "cr4" => registers.cr4 = value.extract()?,
            "cr8" => registers.cr8 = value.extract()?,
            "efer" => registers.efer = value.extract()?,
            "apic_base" => registers.apic_base = value.extract()?,
            _ => return Err(unknown(&name)),
        }
    }
    Ok(())
}

fn segment_to_dict<'py>(py: Python<'py>, segment: &Segment) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("base", segment.base)?;
    dict.set_item("limit", segment.limit)?;
    dict.set_item("attributes", segment.attributes.0)?;
    dict.set_item("selector", segment.selector)?;
    Ok(dict)
}

fn update_segment(segment: &mut Segment, values: &Bound<'_, PyDict>) -> PyResult<()> {
    for (name, value) in values {
        match name.extract::<String>()?.as_str() {
            "base" => segment.base = value.extract()?,
            "limit" => segment.limit = value.extract()?,
            "attributes" => segment.attributes = SegmentAttributes(value.extract()?),
            "selector" => segment.selector = value.extract()?,
            name => return Err(unknown(name)),
        }
    }
    Ok(())
}

fn table_to_dict(py: Python<'_>, table: DescriptorTable) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("base", table.base)?;
    dict.set_item("limit", table.limit)?;
    Ok(dict)
}

fn update_table(table: &mut DescriptorTable, values: &Bound<'_, PyDict>) -> PyResult<()> {
    for (name, value) in values {
        match name.extract::<String>()?.as_str() {
            "base" => table.base = value.extract()?,
            "limit" => table.limit = value.extract()?,
            name => return Err(unknown(name)),
        }
    }
    Ok(())
}

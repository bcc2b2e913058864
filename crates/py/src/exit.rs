//! The exits of a virtual processor, a class each.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use ringfence_engine as engine;

/// Declares an exit with named fields that can be matched by position.
macro_rules! exit_class {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty => $format:literal),+ }) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, hash, get_all, module = "ringfence._core")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name {
            $($field: $type),+
        }

        #[pymethods]
        impl $name {
            #[classattr]
            #[pyo3(name = "__match_args__")]
            fn match_args(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
                PyTuple::new(py, [$(stringify!($field)),+])
            }

            #[new]
            const fn new($($field: $type),+) -> Self {
                Self { $($field),+ }
            }

            fn __repr__(&self) -> String {
                let fields = [$(format!(concat!(stringify!($field), "=", $format), self.$field)),+];
                format!("{}({})", stringify!($name), fields.join(", "))
            }
        }
    };
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[pyclass(frozen, eq, hash, module = "ringfence._core")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name;

        #[pymethods]
        impl $name {
            #[new]
            const fn new() -> Self {
                Self
            }

            fn __repr__(&self) -> &'static str {
                concat!(stringify!($name), "()")
            }
        }
    };
}

exit_class! {
    /// ``IN``: the next :meth:`Vcpu.run` gets the value.
    PortIn { port: u16 => "{:#x}", size: u8 => "{}" }
}
exit_class! {
    /// ``OUT``.
    PortOut { port: u16 => "{:#x}", size: u8 => "{}", value: u32 => "{:#x}" }
}
exit_class! {
    /// A load where no memory is: the next :meth:`Vcpu.run` gets the value.
    MmioRead { address: u64 => "{:#x}", size: u8 => "{}" }
}
exit_class! {
    /// A store where no writable memory is.
    MmioWrite { address: u64 => "{:#x}", size: u8 => "{}", value: u64 => "{:#x}" }
}
exit_class! {
    /// ``HLT`` on a machine without interrupt hardware.
    Halt
}
exit_class! {
    /// The processor shut down: a triple fault.
    Shutdown
}
exit_class! {
    /// ``VMCALL`` or ``VMMCALL``.
    Hypercall
}
exit_class! {
    /// A breakpoint or single step that a debugger asked for.
    Debug { address: u64 => "{:#x}" }
}
exit_class! {
    /// Another thread called :meth:`Vcpu.interrupt`.
    Interrupted
}

/// An exit as a Python object.
pub fn to_python(py: Python<'_>, exit: &engine::Exit) -> PyResult<Py<PyAny>> {
    use engine::Exit as E;
    Ok(match *exit {
        E::PortIn { port, size } => Py::new(py, PortIn { port, size })?.into_any(),
        E::PortOut { port, size, value } => Py::new(py, PortOut { port, size, value })?.into_any(),
        E::MmioRead { address, size } => Py::new(py, MmioRead { address, size })?.into_any(),
        E::MmioWrite {
            address,
            size,
            value,
        } => Py::new(
            py,
            MmioWrite {
                address,
                size,
                value,
            },
        )?
        .into_any(),
        E::Halt => Py::new(py, Halt)?.into_any(),
        E::Shutdown => Py::new(py, Shutdown)?.into_any(),
        E::Hypercall => Py::new(py, Hypercall)?.into_any(),
        E::Debug { address } => Py::new(py, Debug { address })?.into_any(),
        E::Interrupted => Py::new(py, Interrupted)?.into_any(),
    })
}

/// Adds the classes, and `Exit` as their union, to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PortIn>()?;
    module.add_class::<PortOut>()?;
    module.add_class::<MmioRead>()?;
    module.add_class::<MmioWrite>()?;
    module.add_class::<Halt>()?;
    module.add_class::<Shutdown>()?;
    module.add_class::<Hypercall>()?;
    module.add_class::<Debug>()?;
    module.add_class::<Interrupted>()?;
    let py = module.py();
    let union = py.get_type::<PortIn>().into_any();
    let others = [
        py.get_type::<PortOut>(),
        py.get_type::<MmioRead>(),
        py.get_type::<MmioWrite>(),
        py.get_type::<Halt>(),
        py.get_type::<Shutdown>(),
        py.get_type::<Hypercall>(),
        py.get_type::<Debug>(),
        py.get_type::<Interrupted>(),
    ];
    let union = others
        .iter()
        .try_fold(union, |union, class| union.bitor(class))?;
    module.add("Exit", union)
}

//! The exits of a virtual processor, a class each.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
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
    /// ``REP INS``, ``count`` elements at once: the next :meth:`Vcpu.run` gets their bytes.
    PortInString { port: u16 => "{:#x}", size: u8 => "{}", count: u16 => "{}" }
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

/// ``REP OUTS``, several elements at once.
#[pyclass(frozen, module = "ringfence._core")]
#[derive(Debug)]
pub struct PortOutString {
    #[pyo3(get)]
    port: u16,
    #[pyo3(get)]
    size: u8,
    #[pyo3(get)]
    data: Py<PyBytes>,
}

#[pymethods]
impl PortOutString {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    const fn match_args() -> (&'static str, &'static str, &'static str) {
        ("port", "size", "data")
    }

    #[new]
    const fn new(port: u16, size: u8, data: Py<PyBytes>) -> Self {
        Self { port, size, data }
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> bool {
        (self.port, self.size) == (other.port, other.size)
            && self.data.as_bytes(py) == other.data.as_bytes(py)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        (self.port, self.size, self.data.bind(py))
            .into_pyobject(py)?
            .hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let data = self.data.bind(py).repr()?;
        let (port, size) = (self.port, self.size);
        Ok(format!(
            "PortOutString(port={port:#x}, size={size}, data={data})"
        ))
    }
}

/// An exit as a Python object.
pub fn to_python(py: Python<'_>, exit: &engine::Exit) -> PyResult<Py<PyAny>> {
    use engine::Exit as E;
    Ok(match *exit {
        E::PortIn { port, size } => Py::new(py, PortIn { port, size })?.into_any(),
        E::PortOut { port, size, value } => Py::new(py, PortOut { port, size, value })?.into_any(),
        E::PortInString { port, size, count } => {
            Py::new(py, PortInString { port, size, count })?.into_any()
        }
        E::PortOutString {
            port,
            size,
            ref data,
        } => {
            let data = PyBytes::new(py, data).unbind();
            Py::new(py, PortOutString { port, size, data })?.into_any()
        }
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
    module.add_class::<PortInString>()?;
    module.add_class::<PortOutString>()?;
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
        py.get_type::<PortInString>(),
        py.get_type::<PortOutString>(),
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

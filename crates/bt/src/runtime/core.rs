//! The dispatcher: finds or makes translated code, runs it, and does what it could not.

mod gs;
mod single;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use iced_x86::Instruction;
use ringfence_engine::{Clock, Debugging, EngineError, Exit, GuestMemory, LocalDevices, VcpuEvent};
use ringfence_memory::{CodeHolder, MemoryError};
use ringfence_x86::flags;

use self::gs::set_gs_base;
use super::kick::Kicker;
use super::mailbox::{Mailbox, Running};
use super::profile::{Phase, Profiler};
use super::signals::Registration;
use super::stubs::Stubs;
use super::unconfirmed::Unconfirmed;
use crate::cache::{BlockId, Cache, Key};
use crate::context::{CLASSES, Context, ContextBox, KICKED};
use crate::cpu::Cpu;
use crate::env::{Env as _, Exception, Flush};
use crate::frontend::mode::Mode;
use crate::frontend::translate::{Refusal, Translator};
use crate::frontend::{exit, late_indirect_entries};
use crate::interp::system::cpuid::CpuidModel;
use crate::interp::system::{Delivery, deliver_interrupt, deliver_nmi, enter_smm, startup};
use crate::interp::{Step, breakpoints, step, step_decoded};
use crate::softmmu::phys::Phys;
use crate::softmmu::world::World;

/// How many recent instruction addresses are kept for error messages.
const RECENT: usize = 16;

/// How often a guest may PAUSE before it gives way: some five thousand cycles.
const PAUSES: u32 = 100;

/// In all tags of modes.
const TAG: u64 = 1 << 63;

/// How many modes, which differ by their code segments mainly, may have tags at a time.
const MAX_TAGS: usize = 1 << 20;

/// Counters of one processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Blocks translated.
    pub blocks: u64,
    /// Instructions the interpreter executed because they are system instructions.
    pub system: u64,
    /// Instructions the interpreter executed because memory access needed it.
    pub memory: u64,
    /// Instructions the interpreter executed because of a native fault.
    pub faults: u64,
    /// Instructions the interpreter executed in modes that are not translated.
    pub interpreted: u64,
    /// TLB misses in translated code.
    pub tlb_misses: u64,
    /// Unknown indirect-branch targets.
    pub target_misses: u64,
    /// Direct branches linked or resolved.
    pub branches: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Writes to pages with translated code.
    pub code_writes: u64,
    /// Times the whole cache was dropped.
    pub resets: u64,
    /// Flushes of non-global translations, and of all.
    pub flushes: u64,
    /// Waits in HLT.
    pub halts: u64,
}

/// One virtual processor's engine.
#[derive(Debug)]
pub struct Core {
    context: Arc<ContextBox>,
    /// Memory and devices.
    pub world: World,
    /// Translated code.
    pub cache: Cache,
    /// Counters.
    pub statistics: Statistics,
    /// Where the time goes, when asked for.
    pub profiler: Profiler,
    translator: Translator,
    stubs: Stubs,
    kicker: Arc<Kicker>,
    pub(super) mailbox: Arc<Mailbox>,
    /// This processor's bit in the words of guest memory.
    pub(super) bit: u64,
    id: u32,
    /// Tags of the modes other than 64-bit ones.
    pub(super) tags: HashMap<Mode, u64>,
    pub(super) last_tag: (Mode, u64),
    /// Mode that the branch targets of each class were entered for.
    target_modes: [Mode; CLASSES],
    /// Nothing is translated.
    pub interpreter: bool,
    /// The budget that translated code was given.
    pub(super) budget: i64,
    /// Number of instructions at which the time was looked at last.
    pub(super) looked_at: u64,
    /// CR0, CR4, EFER and XCR0 that they were entered for.
    control: [u64; 4],
    /// The exit that the machine is answering.
    answering: Option<Exit>,
    /// An instruction is half done: it comes before any interrupt.
    incomplete: Option<Incomplete>,
    /// Pages that other processors may still write to unseen.
    pub(super) unconfirmed: Unconfirmed,
    /// An NMI waits until the handler of the previous one has returned.
    pub nmi_pending: bool,
    /// An SMI waits until the handler of the previous one has returned.
    smi_pending: bool,
    /// What a debugger wants.
    pub debugging: Debugging,
    recent: [u64; RECENT],
    recent_next: usize,
    _registration: Registration,
}

/// What is to be done again when the machine has answered.
#[derive(Clone, Debug)]
enum Incomplete {
    Instruction,
    Interrupt(u8),
    Nmi,
    Exception(Exception),
}

/// What the dispatcher does next.
pub(super) enum Next {
    /// Look at interrupts and go on at RIP.
    Continue,
    /// Enter this block, which is the one at RIP.
    Enter(BlockId),
    /// Leave with this exit.
    Leave(Exit),
}

impl Core {
    /// Processor `id` of a machine whose processors are of the model `cpuid`.
    ///
    /// # Errors
    /// [`EngineError`] when the host refuses memory or lacks an instruction set extension.
    pub fn new(
        id: u32,
        cpuid: Arc<CpuidModel>,
        memory: Arc<GuestMemory>,
        devices: Arc<dyn LocalDevices>,
        clock: Arc<Clock>,
    ) -> Result<Box<Self>, EngineError> {
        if !std::arch::is_x86_feature_detected!("xsave") {
            let reason = "the processor has no XSAVE".to_owned();
            return Err(EngineError::Unsupported {
                engine: "bt",
                reason,
            });
        }
        let mut cache = Cache::new()?;
        let stubs = Stubs::emit(&mut cache);
        let context = Arc::new(ContextBox::new(cache.miss()));
        let translator = Translator::new(&cpuid);
        let kicker = Arc::new(Kicker::new(Arc::clone(&context)));
        let mailbox = Arc::new(Mailbox::new(Arc::clone(&kicker)));
        let holder: Weak<dyn CodeHolder> = Arc::<Mailbox>::downgrade(&mailbox);
        let bit = memory
            .add_holder(holder)
            .map_err(|error: MemoryError| EngineError::Internal(error.to_string()))?;
        let (bit, phys) = (1 << bit, Phys::new(memory));
        // SAFETY: the world lives in the same structure as the context's owner.
        let world = unsafe { World::new(id, context.as_ptr(), phys, devices, clock, cpuid, bit) };
        let registration = Registration::new(cache.range(), stubs.native_fault as u64)
            .ok_or_else(|| EngineError::Internal("too many processors in one process".into()))?;
        Ok(Box::new(Self {
            kicker,
            mailbox,
            bit,
            context,
            world,
            cache,
            statistics: Statistics::default(),
            profiler: Profiler::default(),
            translator,
            stubs,
            id,
            tags: HashMap::new(),
            last_tag: (Mode::INTERPRET, 0),
            target_modes: [Mode::INTERPRET; CLASSES],
            interpreter: false,
            budget: 0,
            looked_at: 0,
            control: [0; 4],
            answering: None,
            incomplete: None,
            unconfirmed: Unconfirmed::default(),
            nmi_pending: false,
            smi_pending: false,
            debugging: Debugging::default(),
            recent: [0; RECENT],
            recent_next: 0,
            _registration: registration,
        }))
    }

    /// The handle for other threads.
    pub fn kicker(&self) -> &Arc<Kicker> {
        &self.kicker
    }

    /// The context, apart from the borrow of `self`: its fields and those of `self` are disjoint.
    #[allow(clippy::mut_from_ref, reason = "the context is not a part of `self`")]
    pub(super) fn context<'a>(&self) -> &'a mut Context {
        // SAFETY: the context outlives every use, which are all in methods of this type on the
        // thread that runs the processor; no two uses overlap on the same field.
        unsafe { &mut *self.context.as_ptr() }
    }

    /// The architectural state.
    pub fn cpu<'a>(&self) -> &'a mut Cpu {
        &mut self.context().cpu
    }

    /// Runs until something leaves the engine.
    ///
    /// # Errors
    /// [`EngineError::Internal`] for a defect of the engine.
    pub fn run(&mut self, completion: u64) -> Result<Exit, EngineError> {
        let context = self.context();
        context.owner = std::ptr::from_mut(self) as u64;
        set_gs_base(context.this);
        if let Some(exit) = self.answering.take() {
            self.world.complete(exit, completion);
        }
        let _running = Running::new(&self.mailbox);
        self.profiler.enter();
        let result = if self.debugging == Debugging::default() {
            self.run_until_exit()
        } else {
            self.debug()
        };
        self.profiler.phase(Phase::Outside);
        result
    }

    fn run_until_exit(&mut self) -> Result<Exit, EngineError> {
        loop {
            if let Some(exit) = self.prepare()? {
                return Ok(self.leave(exit));
            }
            let mut next = self.dispatch()?;
            loop {
                match next {
                    Next::Continue => break,
                    Next::Leave(exit) => return Ok(self.leave(exit)),
                    Next::Enter(id) => next = self.enter_block(id)?,
                }
            }
        }
    }

    fn leave(&mut self, exit: Exit) -> Exit {
        if matches!(
            exit,
            Exit::PortIn { .. }
                | Exit::PortOut { .. }
                | Exit::PortInString { .. }
                | Exit::PortOutString { .. }
                | Exit::MmioRead { .. }
                | Exit::MmioWrite { .. }
        ) {
            self.answering = Some(exit.clone());
        }
        exit
    }

    /// Finishes what is half done, then looks at requests, events and interrupts.
    fn prepare(&mut self) -> Result<Option<Exit>, EngineError> {
        self.answer_requests();
        let cpu = self.cpu();
        if let Some(exit) = self.complete() {
            return Ok(Some(exit));
        }
        if let Some(exit) = self.keep_time() {
            return Ok(Some(exit));
        }
        let context = self.context();
        if context.kick.load(Ordering::Relaxed) != 0 {
            context.kick.store(0, Ordering::SeqCst);
            // One that came since the last look has set the flag that was just cleared.
            self.answer_requests();
            if self.kicker.take_interrupt() {
                return Ok(Some(Exit::Interrupted));
            }
            while let Some(event) = self.world.devices.take_event(self.id) {
                match event {
                    VcpuEvent::Init => {
                        cpu.reset(true);
                        if self.world.phys.in_smm() {
                            self.show_smram(false);
                        }
                        self.world.paravirt.reset();
                        self.drop_everything();
                    }
                    VcpuEvent::Startup(vector) => startup(cpu, vector),
                    VcpuEvent::Smi => self.smi_pending = true,
                    VcpuEvent::Nmi => self.nmi_pending = true,
                }
            }
        }
        if self.smi_pending && !cpu.smm && !cpu.interrupt_shadow {
            self.smi_pending = false;
            self.show_smram(true);
            self.world.begin_instruction();
            enter_smm(cpu, &mut self.world);
            self.retired();
        }
        let devices = Arc::clone(&self.world.devices);
        self.world.paravirt.take_eoi(&*devices, self.id);
        let waits = self.world.devices.interrupt_pending(self.id);
        context.interrupt_waits = u32::from(waits);
        if self.nmi_pending && !cpu.nmi_blocked && !cpu.interrupt_shadow {
            self.nmi_pending = false;
            cpu.halted = false;
            return Ok(self.nmi());
        }
        if cpu.rflags & flags::IF != 0
            && !cpu.interrupt_shadow
            && waits
            && let Some(vector) = self.world.devices.acknowledge_interrupt(self.id)
        {
            cpu.halted = false;
            self.statistics.interrupts += 1;
            self.world.paravirt.account();
            self.world.paravirt.offer_eoi(&*devices, self.id);
            return Ok(self.interrupt(vector));
        }
        Ok(None)
    }

    fn interrupt(&mut self, vector: u8) -> Option<Exit> {
        self.world.begin_instruction();
        match deliver_interrupt(self.cpu(), &mut self.world, vector) {
            Delivery::Done => self.retired(),
            Delivery::Exit(exit) => {
                self.incomplete = Some(Incomplete::Interrupt(vector));
                return Some(exit);
            }
            Delivery::Shutdown => return Some(Exit::Shutdown),
        }
        None
    }

    fn nmi(&mut self) -> Option<Exit> {
        self.world.begin_instruction();
        match deliver_nmi(self.cpu(), &mut self.world) {
            Delivery::Done => self.retired(),
            Delivery::Exit(exit) => {
                self.incomplete = Some(Incomplete::Nmi);
                return Some(exit);
            }
            Delivery::Shutdown => return Some(Exit::Shutdown),
        }
        None
    }

    /// Goes on at RIP.
    fn dispatch(&mut self) -> Result<Next, EngineError> {
        let cpu = self.cpu();
        if cpu.halted || self.world.devices.waits_for_startup(self.id) {
            if cpu.halted && self.world.devices.take_wake(self.id) {
                cpu.halted = false;
                return Ok(Next::Continue);
            }
            self.statistics.halts += 1;
            if self.skip_idle() {
                return Ok(Next::Continue);
            }
            self.world.paravirt.halt_begins();
            self.mailbox.set_running(false);
            self.kicker.wait();
            self.mailbox.set_running(true);
            if self.world.paravirt.halt_ends() {
                self.world.flush(cpu, Flush::All);
                self.apply_pending();
            }
            return Ok(Next::Continue);
        }
        let event = self.nmi_pending || self.smi_pending && !cpu.smm;
        if cpu.interrupt_shadow && (self.context().interrupt_waits != 0 || event) {
            // Delivered right after the next instruction: a block may clear IF again.
            return Ok(self.interpret());
        }
        let mode = self.mode();
        if mode == Mode::INTERPRET || self.must_step() {
            return Ok(self.interpret_run());
        }
        self.set_mode(mode);
        let context = self.context();
        let slot = cpu.rip as usize & (crate::context::TARGETS - 1);
        let code = context.targets[mode.class()][0][slot];
        if code != self.cache.miss()[0] {
            let address = cpu.rip | self.tag(mode);
            return self.enter(code as *const u8, address);
        }
        self.lookup(mode, true)
    }

    /// What indirect branches of `mode` have in the bits above the instruction pointer: no two
    /// modes share branch targets, so a change of mode leaves them alone. The addresses are not
    /// canonical, and differ from those that a kick makes.
    fn tag(&mut self, mode: Mode) -> u64 {
        if mode.long() {
            return 0;
        }
        let mode = mode.with_separate(false);
        if self.last_tag.0 != mode {
            let next = TAG | (self.tags.len() as u64 + 1) << 32;
            self.last_tag = (mode, *self.tags.entry(mode).or_insert(next));
        }
        self.last_tag.1
    }

    /// Makes the branch-target table of the mode's privilege class one for `mode`. Translated code
    /// changes the class by itself, so the other table must fit the control registers too.
    fn set_mode(&mut self, mode: Mode) {
        if !mode.long() {
            return;
        }
        let cpu = self.cpu();
        let control = [cpu.cr0, cpu.cr4, cpu.efer, cpu.xcr0];
        let context = self.context();
        if control != self.control {
            self.control = control;
            for class in 0..CLASSES {
                self.target_modes[class] = Mode::INTERPRET;
                context.targets64[class] = 0;
            }
        }
        let class = mode.class();
        if self.target_modes[class] != mode {
            self.target_modes[class] = mode;
            context.targets64[class] = u32::from(mode.bits() == 64);
            context.forget_targets(class, self.cache.miss());
        }
    }

    /// Finds or makes the block at RIP; with `target`, enters it into the branch-target table.
    fn lookup(&mut self, mode: Mode, target: bool) -> Result<Next, EngineError> {
        let ip = self.cpu().rip;
        let Some((id, global)) = self.block(mode, ip, target) else {
            return Ok(self.interpret_if_allowed());
        };
        if target {
            self.add_target(mode, id, global);
        }
        Ok(Next::Enter(id))
    }

    fn add_target(&mut self, mode: Mode, id: BlockId, global: bool) {
        let block = &mut self.cache.blocks[id as usize];
        if block.indirect_entries[0].is_null() {
            let (address, live, entry) = (block.address, block.flags_live, block.entry);
            let cold = &mut self.cache.cold;
            block.indirect_entries = late_indirect_entries(cold, &self.stubs, address, live, entry);
        }
        self.cache
            .enter_target(self.context(), mode.class(), id, global);
    }

    /// The block at `ip` and whether its page is global; `None` if the interpreter must go on
    /// there.
    fn block(&mut self, mode: Mode, ip: u64, indirect: bool) -> Option<(BlockId, bool)> {
        if (ip as i64) << 16 >> 16 != ip as i64 || !mode.in_limit(ip, 1) {
            // Not canonical, or beyond the limit: the interpreter raises #GP. The page walk would
            // not notice.
            return None;
        }
        let linear = mode.linear(ip);
        if self.tags.len() > MAX_TAGS {
            self.drop_everything();
        }
        let tag = self.tag(mode);
        let cpu = self.cpu();
        if breakpoints::on_page(cpu, linear, true) {
            return None;
        }
        let (physical, global) = Translator::locate(cpu, &self.world.phys, linear)?;
        let key = Key {
            linear,
            physical,
            mode,
        };
        let phys = &self.world.phys;
        let second = || {
            let next = (linear | 0xfff).wrapping_add(1);
            Translator::locate(cpu, phys, next).map(|(gpa, _)| gpa)
        };
        if let Some(id) = self.cache.find(&key, second) {
            return Some((id, global));
        }
        if !self.cache.has_room() {
            self.drop_everything();
        }
        let spills = linear & 0xfff > 0xff0;
        let after = (linear | 0xfff).wrapping_add(1);
        let next = spills
            .then(|| Translator::locate(cpu, &self.world.phys, after))
            .flatten();
        for gpa in [Some(physical), next.map(|(gpa, _)| gpa)]
            .into_iter()
            .flatten()
        {
            self.protect(gpa);
        }
        let phys = &self.world.phys;
        self.profiler.phase(Phase::Translate);
        let made =
            self.translator
                .translate(&mut self.cache, &self.stubs, cpu, phys, key, tag, indirect);
        self.profiler.phase(Phase::Dispatch);
        match made {
            Ok(id) => {
                self.statistics.blocks += 1;
                Some((id, global))
            }
            Err(Refusal::Fetch) => None,
        }
    }

    fn enter_block(&mut self, id: BlockId) -> Result<Next, EngineError> {
        let entry = self.cache.blocks[id as usize].entry;
        self.enter(entry, 0)
    }

    /// Runs translated code from `code` until it leaves.
    fn enter(&mut self, code: *const u8, r10: u64) -> Result<Next, EngineError> {
        let context = self.context();
        let cpu = &mut context.cpu;
        cpu.interrupt_shadow = false;
        cpu.rflags &= !flags::RF;
        self.begin_counting();
        context.flags = to_context(cpu.rflags);
        context.xsave_mask = (cpu.xcr0 | 3) as u32 & 0xe7;
        context.tsc_offset = self
            .world
            .clock()
            .tsc_offset()
            .wrapping_add(cpu.msr.tsc_adjust);
        // SAFETY: the stub was emitted with this signature, the GS base is the context, and
        // `code` is an entry of a live block of this processor.
        unsafe {
            let enter: extern "sysv64" fn(*const u8, u64) = std::mem::transmute(self.stubs.enter);
            enter(code, r10);
        }
        let context = self.context();
        let cpu = &mut context.cpu;
        cpu.rflags = cpu.rflags & !flags::ARITHMETIC | from_context(context.flags);
        let (id, reason) = (context.exit >> 8, context.exit & 0xff);
        // What left in cold code in the middle of a block could not account for it.
        let more = match reason {
            exit::MEMORY | exit::INTERPRET => context.executed,
            exit::FAULT => self.executed_at_fault(context.exit_site),
            _ => 0,
        };
        self.end_counting(more);
        match reason {
            exit::SYSTEM => {
                let block = &self.cache.blocks[id as usize];
                cpu.rip = block.system_at;
                let Some(instruction) = block.system.as_deref().copied() else {
                    return Err(EngineError::Internal(
                        "a block without its instruction".into(),
                    ));
                };
                self.statistics.system += 1;
                Ok(self.interpret_decoded(&instruction))
            }
            exit::KICKED => Ok(Next::Continue),
            exit::BUDGET => Ok(self.interpret_if_allowed()),
            exit::PAUSED => {
                self.context().pauses = PAUSES;
                std::thread::yield_now();
                Ok(Next::Continue)
            }
            exit::INTERPRET => {
                self.statistics.system += 1;
                Ok(self.interpret())
            }
            exit::TARGET => {
                let rip = cpu.rip;
                if !cpu.mode64() {
                    cpu.rip = rip & 0xffff_ffff;
                    if rip & KICKED != 0 {
                        return Ok(Next::Continue);
                    }
                    self.statistics.target_misses += 1;
                    return self.lookup(Mode::of(cpu), true);
                }
                let canonical = (rip as i64) << 16 >> 16;
                if rip != canonical as u64 && rip.wrapping_sub(KICKED) == canonical as u64 {
                    cpu.rip = canonical as u64;
                    return Ok(Next::Continue);
                }
                self.statistics.target_misses += 1;
                self.lookup(self.mode(), true)
            }
            exit::MEMORY => {
                self.statistics.memory += 1;
                Ok(self.interpret())
            }
            exit::FAULT => self.native_fault(),
            _ => self.follow(id, reason.wrapping_sub(exit::BRANCH) as u8),
        }
    }

    /// Goes on at the target of a direct branch, and links it.
    fn follow(&mut self, from: BlockId, number: u8) -> Result<Next, EngineError> {
        self.statistics.branches += 1;
        let source = &self.cache.blocks[from as usize];
        let source_page = source.key.linear & !0xfff;
        let spans = source.second_page.is_some();
        let Some(exit) = source.exits.get(usize::from(number)).copied() else {
            return Err(EngineError::Internal(format!(
                "block {from} has no exit {number}"
            )));
        };
        let mode = source.key.mode.with_separate(exit.separate);
        let mode = exit.access.map_or(mode, |access| mode.with_access(access));
        let target = exit.target;
        self.cpu().rip = target;
        if self.context().kick.load(Ordering::Relaxed) != 0 {
            return Ok(Next::Continue);
        }
        let resets = self.statistics.resets;
        let Some((to, global)) = self.block(mode, target, false) else {
            return Ok(self.interpret_if_allowed());
        };
        if self.statistics.resets == resets {
            let page = mode.linear(target) & !0xfff;
            let two = self.cache.blocks[to as usize].second_page.is_some();
            if page == source_page && !two && !spans {
                self.cache.link(from, number, to, &[]);
            } else if two {
                self.cache
                    .link(from, number, to, &[(page, global), (page + 0x1000, global)]);
            } else {
                self.cache.link(from, number, to, &[(page, global)]);
            }
        }
        Ok(Next::Enter(to))
    }

    /// A guest instruction faulted on the host: the interpreter finds out why.
    fn native_fault(&mut self) -> Result<Next, EngineError> {
        let context = self.context();
        let host = context.exit_site;
        let block = self
            .cache
            .block_at(host)
            .map(|id| &self.cache.blocks[id as usize]);
        let site = block.and_then(|b| b.faults.iter().find(|f| f.host == host).map(|f| (b, *f)));
        let Some((block, site)) = site else {
            let rip = block.map_or(0, |b| b.key.linear);
            return Err(EngineError::Internal(format!(
                "translated code of the block at {rip:#x} faulted at host address {host:#x}"
            )));
        };
        let cpu = &mut context.cpu;
        let linear = block.key.linear & !0xfff | u64::from(site.offset);
        cpu.rip = block.key.mode.ip(linear);
        if site.flags_in_register {
            cpu.rflags = cpu.rflags & !flags::ARITHMETIC | from_context(context.fault_flags);
        }
        self.statistics.faults += 1;
        Ok(self.interpret())
    }

    pub(super) fn interpret(&mut self) -> Next {
        self.world.begin_instruction();
        self.note_recent();
        self.profiler.phase(Phase::Interpret);
        let result = step(self.cpu(), &mut self.world);
        self.profiler.phase(Phase::Dispatch);
        self.after_step(result).map_or(Next::Continue, Next::Leave)
    }

    fn interpret_decoded(&mut self, instruction: &Instruction) -> Next {
        self.world.begin_instruction();
        self.note_recent();
        self.profiler.phase(Phase::Interpret);
        let result = step_decoded(self.cpu(), &mut self.world, instruction);
        self.profiler.phase(Phase::Dispatch);
        self.after_step(result).map_or(Next::Continue, Next::Leave)
    }

    fn note_recent(&mut self) {
        self.recent[self.recent_next % RECENT] = self.cpu().rip;
        self.recent_next = self.recent_next.wrapping_add(1);
    }

    /// Linear addresses at which the interpreter was last used, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = u64> + '_ {
        (0..RECENT)
            .map(|i| self.recent[(self.recent_next + i) % RECENT])
            .filter(|&rip| rip != 0)
    }

    fn after_step(&mut self, result: Step) -> Option<Exit> {
        if let Step::Exit(exit) = result {
            self.apply_pending();
            self.incomplete = Some(Incomplete::Instruction);
            return Some(exit);
        }
        self.count_step();
        self.retired();
        (result == Step::Shutdown).then_some(Exit::Shutdown)
    }

    /// An instruction is complete: applies what it changed to the translated code.
    fn retired(&mut self) {
        self.world.end_instruction();
        self.apply_pending();
    }
}

/// Arithmetic flags of RFLAGS in the form of [`Context::flags`].
fn to_context(rflags: u64) -> u32 {
    ((rflags & 0xff) << 8 | rflags >> 11 & 1) as u32
}

/// Arithmetic flags of RFLAGS from the form of [`Context::flags`].
fn from_context(value: u32) -> u64 {
    let value = u64::from(value);
    value >> 8 & (flags::ARITHMETIC & 0xff) | (value & 1) << 11
}

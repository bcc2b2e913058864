//! Translated blocks: where they are, how they are found, linked and dropped.
//!
//! Each virtual processor has a cache of its own, so nothing here is locked and links may depend
//! on the address space that the processor is in. A block is found by its linear and physical
//! address and the processor mode. Direct branches within a page are linked for good; branches
//! into another page, and branch-target table entries, hold as long as the page's translation
//! does and are logged by linear page.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use iced_x86::Instruction;
use libc::{
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE,
};
use ringfence_engine::EngineError;

use crate::context::{CLASSES, Context, TARGETS};
use crate::emit::asm::{Asm, patch};
use crate::frontend::mode::Mode;

/// Bytes of code per processor, committed as they are used.
const CODE_SIZE: usize = 96 << 20;
/// Part of it for code that is rarely executed.
const COLD_SIZE: usize = 48 << 20;
/// Bytes that must be left in either part for the next block.
const RESERVE: usize = 64 << 10;

/// Index of a block in [`Cache::blocks`].
pub type BlockId = u32;

/// Multiplicative hashing for small integer keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct FastHasher(u64);

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }
}

type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<FastHasher>>;

/// What a translation depends on beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Linear address.
    pub linear: u64,
    /// Guest physical address.
    pub physical: u64,
    /// Processor mode.
    pub mode: Mode,
}

/// A direct branch that leaves a block.
#[derive(Clone, Copy, Debug)]
pub struct BranchExit {
    /// Address of the branch's displacement.
    pub site: *mut u8,
    /// Where it goes while it is not linked.
    pub stub: *const u8,
    /// Instruction pointer at the target.
    pub target: u64,
    /// The target is wanted in the variant with separate checks.
    pub separate: bool,
    /// The target runs with RFLAGS.AC, which opens user pages, or without.
    pub access: Option<bool>,
    /// Block that it is linked to.
    pub linked: Option<BlockId>,
}

/// Where a guest instruction that may fault on the host begins.
#[derive(Clone, Copy, Debug)]
pub struct FaultSite {
    /// Host address.
    pub host: u64,
    /// Offset of the guest instruction in its page.
    pub offset: u16,
    /// The flags are in EFLAGS, not in the context.
    pub flags_in_register: bool,
    /// Instructions of the block before it.
    pub index: u16,
}

/// A translated block.
#[derive(Debug)]
pub struct Block {
    /// What it was translated for.
    pub key: Key,
    /// What indirect branches to it carry: its instruction pointer, with a tag for the mode unless
    /// it is 64-bit code.
    pub address: u64,
    /// Physical address of the second page, if it spans two.
    pub second_page: Option<u64>,
    /// Physical address of the first byte.
    pub low: u64,
    /// Physical address behind the last byte, counted on through the first page's end.
    pub high: u64,
    /// Entry for direct branches: flags in EFLAGS if they are live.
    pub entry: *const u8,
    /// Entries for indirect branches, which check R10, with flags in EFLAGS and in the context;
    /// null until they are needed.
    pub indirect_entries: [*const u8; 2],
    /// The block reads flags that it did not set.
    pub flags_live: bool,
    /// Direct branches.
    pub exits: Vec<BranchExit>,
    /// Branches linked to this block.
    pub incoming: Vec<(BlockId, u8)>,
    /// Native instructions that may fault, by address.
    pub faults: Vec<FaultSite>,
    /// The instruction at the end that the interpreter executes.
    pub system: Option<Box<Instruction>>,
    /// Its instruction pointer.
    pub system_at: u64,
    /// Dropped: never entered again.
    pub dead: bool,
}

/// Branches that depend on the translation of one linear page.
#[derive(Debug, Default)]
struct PageBranches {
    links: Vec<(BlockId, u8)>,
    targets: Vec<(u8, u16)>,
}

/// The code of a physical page that is translated.
#[derive(Debug, Default)]
struct PageCode {
    blocks: Vec<BlockId>,
    /// The lines of [`LINE`] bytes that hold some of it, or did.
    lines: u64,
}

/// Bytes of a page that share a bit in [`PageCode::lines`].
const LINE: u64 = 64;

/// Bits of the lines that the bytes `start` to `end` of a page touch; both within the page.
fn lines(start: u64, end: u64) -> u64 {
    if start >= end {
        return 0;
    }
    let (first, last) = (start / LINE, (end - 1) / LINE);
    u64::MAX >> (63 - (last - first)) << first
}

/// The translated code of one virtual processor.
#[derive(Debug)]
pub struct Cache {
    base: *mut u8,
    /// Frequently executed code.
    pub hot: Asm,
    /// Slow paths.
    pub cold: Asm,
    /// First hot and cold byte after the fixed stubs.
    blocks_start: (*mut u8, *mut u8),
    /// All blocks since the last reset, in order of their host addresses.
    pub blocks: Vec<Block>,
    map: FastMap<Key, BlockId>,
    pages: FastMap<u64, PageCode>,
    /// By linear page; apart for translations that are local and for those that are global.
    branches: [FastMap<u64, PageBranches>; 2],
    miss: [u64; 2],
    /// Physical pages (by number) that hold no translated code any more.
    pub emptied: Vec<u64>,
}

// SAFETY: the pointers lead into the cache's own mapping.
unsafe impl Send for Cache {}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`EngineError::Host`] when the host refuses executable memory.
    pub fn new() -> Result<Self, EngineError> {
        // SAFETY: an anonymous mapping at an address the kernel chooses aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                CODE_SIZE,
                PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == MAP_FAILED {
            let source = std::io::Error::last_os_error();
            return Err(EngineError::Host {
                what: "executable memory for translated code",
                source,
            });
        }
        let base = base.cast::<u8>();
        let split = base.wrapping_add(CODE_SIZE - COLD_SIZE);
        // SAFETY: both ranges lie in the mapping, which lives as long as the cache.
        let (hot, cold) = unsafe {
            (
                Asm::new(base, split),
                Asm::new(split, base.wrapping_add(CODE_SIZE)),
            )
        };
        Ok(Self {
            blocks_start: (hot.here(), cold.here()),
            base,
            hot,
            cold,
            blocks: Vec::new(),
            map: FastMap::default(),
            pages: FastMap::default(),
            branches: Default::default(),
            miss: [0; 2],
            emptied: Vec::new(),
        })
    }

    /// The stubs are complete; `miss` is where unknown indirect branches go, with flags in EFLAGS
    /// and in the context.
    pub fn seal_stubs(&mut self, miss: [*const u8; 2]) {
        self.miss = miss.map(|stub| stub as u64);
        self.blocks_start = (self.hot.here(), self.cold.here());
    }

    /// Where unknown indirect branches go, with flags in EFLAGS and in the context.
    pub fn miss(&self) -> [u64; 2] {
        self.miss
    }

    /// Range of host addresses that hold translated code.
    pub fn range(&self) -> (u64, u64) {
        (self.base as u64, self.base as u64 + CODE_SIZE as u64)
    }

    /// Host addresses of the first block and of the first slow path.
    pub fn parts(&self) -> (u64, u64) {
        (self.blocks_start.0 as u64, self.blocks_start.1 as u64)
    }

    /// Host code of a block, slow paths apart.
    pub fn host_code(&self, index: usize) -> &[u8] {
        let start = self.blocks[index].entry;
        let end = self
            .blocks
            .get(index + 1)
            .map_or(self.hot.here().cast_const(), |next| next.entry);
        // SAFETY: blocks follow each other in the hot part, which lives as long as the cache.
        unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
    }

    /// Whether the next block fits.
    pub fn has_room(&self) -> bool {
        self.hot.room() > RESERVE && self.cold.room() > RESERVE
    }

    /// Bytes of code in use.
    pub fn used(&self) -> usize {
        CODE_SIZE - self.hot.room() - self.cold.room()
    }

    /// Drops everything.
    pub fn reset(&mut self, context: &mut Context) {
        for class in 0..CLASSES {
            context.forget_targets(class, self.miss);
        }
        self.hot.rewind(self.blocks_start.0);
        self.cold.rewind(self.blocks_start.1);
        self.blocks.clear();
        self.emptied.extend(self.pages.keys());
        self.map.clear();
        self.pages.clear();
        self.branches.iter_mut().for_each(FastMap::clear);
    }

    /// The block for `key`; `second` translates the page after it, for blocks that span two.
    pub fn find(&self, key: &Key, second: impl FnOnce() -> Option<u64>) -> Option<BlockId> {
        let id = *self.map.get(key)?;
        let block = &self.blocks[id as usize];
        match block.second_page {
            None => Some(id),
            Some(page) => (second() == Some(page)).then_some(id),
        }
    }

    /// Adds a block that was just emitted.
    pub fn insert(&mut self, block: Block) -> BlockId {
        let id = self.blocks.len() as BlockId;
        let page = block.key.physical & !0xfff;
        let (start, end) = (block.low - page, block.high - page);
        let code = self.pages.entry(page >> 12).or_default();
        code.blocks.push(id);
        code.lines |= lines(start, end.min(4096));
        if let Some(page) = block.second_page {
            let code = self.pages.entry(page >> 12).or_default();
            code.blocks.push(id);
            code.lines |= lines(0, end.saturating_sub(4096));
        }
        // A block that spans two pages may be replaced when its second page is another one now;
        // branches to the old one hold until the flush that the change of mapping brings.
        self.map.insert(block.key, id);
        self.blocks.push(block);
        id
    }

    /// The block whose hot code holds host address `host`.
    pub fn block_at(&self, host: u64) -> Option<BlockId> {
        let next = self.blocks.partition_point(|b| b.entry as u64 <= host);
        next.checked_sub(1).map(|i| i as BlockId)
    }

    /// Links exit `exit` of `from` to `to`. `pages` are the linear pages whose translations the
    /// link depends on, and whether they are global.
    pub fn link(&mut self, from: BlockId, exit: u8, to: BlockId, pages: &[(u64, bool)]) {
        let entry = self.blocks[to as usize].entry;
        let source = &mut self.blocks[from as usize];
        if source.dead {
            return;
        }
        let Some(branch) = source.exits.get_mut(usize::from(exit)) else {
            return;
        };
        branch.linked = Some(to);
        // SAFETY: the site was emitted for this exit, and this processor's code is not running.
        unsafe { patch(branch.site, entry) };
        self.blocks[to as usize].incoming.push((from, exit));
        for &(page, global) in pages {
            let log = self.branches[usize::from(global)].entry(page).or_default();
            log.links.push((from, exit));
        }
    }

    fn unlink(&mut self, from: BlockId, exit: u8) {
        let Some(branch) = self
            .blocks
            .get_mut(from as usize)
            .and_then(|b| b.exits.get_mut(usize::from(exit)))
        else {
            return;
        };
        let Some(to) = branch.linked.take() else {
            return;
        };
        // SAFETY: as in `link`.
        unsafe { patch(branch.site, branch.stub) };
        self.blocks[to as usize]
            .incoming
            .retain(|&other| other != (from, exit));
    }

    /// Enters a block into the branch-target table of `class`.
    pub fn enter_target(&mut self, context: &mut Context, class: usize, id: BlockId, global: bool) {
        let block = &self.blocks[id as usize];
        let linear = block.key.linear;
        let slot = block.address as usize & (TARGETS - 1);
        for (table, entry) in context.targets[class]
            .iter_mut()
            .zip(block.indirect_entries)
        {
            table[slot] = entry as u64;
        }
        let pages = 1 + u64::from(block.second_page.is_some());
        for page in (0..pages).map(|i| (linear & !0xfff).wrapping_add(i << 12)) {
            let log = self.branches[usize::from(global)].entry(page).or_default();
            // Targets that share a slot come back again and again.
            let target = (class as u8, slot as u16);
            if !log.targets.contains(&target) {
                log.targets.push(target);
            }
        }
    }

    /// Drops branches into linear page `page`.
    pub fn flush_page(&mut self, context: &mut Context, page: u64) {
        let logs = self.branches.each_mut().map(|map| map.remove(&page));
        for log in logs.into_iter().flatten() {
            self.drop_branches(context, log);
        }
    }

    /// Drops branches that depend on any translation, or on any that is not global.
    pub fn flush(&mut self, context: &mut Context, keep_global: bool) {
        for kind in 0..if keep_global { 1 } else { 2 } {
            let drained: Vec<_> = self.branches[kind].drain().collect();
            for (_, log) in drained {
                self.drop_branches(context, log);
            }
        }
    }

    fn drop_branches(&mut self, context: &mut Context, log: PageBranches) {
        for (from, exit) in log.links {
            self.unlink(from, exit);
        }
        for (class, slot) in log.targets {
            context.forget_target(usize::from(class), usize::from(slot), self.miss);
        }
    }

    /// Whether there is code of a physical page, by its number.
    pub fn has_code(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Whether `size` bytes at physical address `start`, all in one page, may hold code that is
    /// translated.
    pub fn touches_code(&self, start: u64, size: u64) -> bool {
        let offset = start & 0xfff;
        let code = self.pages.get(&(start >> 12));
        code.is_some_and(|code| code.lines & lines(offset, offset + size) != 0)
    }

    /// Drops the blocks that hold code of physical range `[start, end)`.
    pub fn invalidate(&mut self, context: &mut Context, start: u64, end: u64) {
        let range = start >> 12..=(end - 1) >> 12;
        let held: Vec<u64> = if range.end() - range.start() < 16 {
            range.collect()
        } else {
            let pages = self.pages.keys().copied();
            pages.filter(|page| range.contains(page)).collect()
        };
        for page in held {
            let Some(code) = self.pages.get_mut(&page) else {
                continue;
            };
            let base = page << 12;
            let (first, last) = (start.max(base) - base, end.min(base + 4096) - base);
            if code.lines & lines(first, last) == 0 {
                continue;
            }
            let ids = &mut code.blocks;
            let mut dropped = Vec::new();
            let blocks = &self.blocks;
            ids.retain(|&id| {
                let overlaps = blocks[id as usize].overlaps(start, end);
                if overlaps {
                    dropped.push(id);
                }
                !overlaps
            });
            if ids.is_empty() {
                self.pages.remove(&page);
                self.emptied.push(page);
            }
            for id in dropped {
                self.drop_block(context, id);
            }
        }
    }

    fn drop_block(&mut self, context: &mut Context, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        if block.dead {
            return;
        }
        block.dead = true;
        let (key, target) = (block.key, block.indirect_entries[0] as u64);
        let slot = block.address as usize & (TARGETS - 1);
        let outgoing = block.exits.len() as u8;
        let incoming = std::mem::take(&mut block.incoming);
        if self.map.get(&key) == Some(&id) {
            self.map.remove(&key);
        }
        for class in 0..CLASSES {
            if target != 0 && context.targets[class][0][slot] == target {
                context.forget_target(class, slot, self.miss);
            }
        }
        for (from, exit) in incoming {
            let branch = self.blocks[from as usize].exits.get_mut(usize::from(exit));
            if let Some(branch) = branch.filter(|b| b.linked == Some(id)) {
                branch.linked = None;
                // SAFETY: as in `link`.
                unsafe { patch(branch.site, branch.stub) };
            }
        }
        for exit in 0..outgoing {
            self.unlink(id, exit);
        }
    }
}

impl Block {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        let page_end = (self.key.physical | 0xfff) + 1;
        if self.low < end && start < self.high.min(page_end) {
            return true;
        }
        self.second_page
            .is_some_and(|page| page < end && start < page + self.high.saturating_sub(page_end))
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no code in it runs any more.
        unsafe { libc::munmap(self.base.cast(), CODE_SIZE) };
    }
}
